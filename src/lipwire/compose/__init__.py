"""From a mouth to a frame: resize and paste, JPEG, I420 planes, raw RGB, and files of video."""

from lipwire.compose.colour import bgr_to_i420, bgr_to_rgb_bytes, i420_shape, paste_patch_i420
from lipwire.compose.geometry import (
    RIM_BYTES,
    BorderPx,
    check_rect,
    crop_rim,
    network_crop,
    paste_mouth,
)
from lipwire.compose.jpeg import patch_box, restart_interval
from lipwire.compose.jpeg_folder import JpegFolderWriter
from lipwire.compose.partial_jpeg import Background, PartialJpeg, encode_jpeg
from lipwire.compose.surroundings import SurroundingsEncoder
from lipwire.compose.video import VideoWriter, Writable, X264Preset

__all__ = [
    "RIM_BYTES",
    "Background",
    "BorderPx",
    "JpegFolderWriter",
    "PartialJpeg",
    "SurroundingsEncoder",
    "VideoWriter",
    "Writable",
    "X264Preset",
    "bgr_to_i420",
    "bgr_to_rgb_bytes",
    "check_rect",
    "crop_rim",
    "encode_jpeg",
    "i420_shape",
    "network_crop",
    "paste_mouth",
    "paste_patch_i420",
    "patch_box",
    "restart_interval",
]
