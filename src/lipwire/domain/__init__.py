"""The nouns everything else is written in: geometry, array shapes, and the error tree."""

from lipwire.domain.errors import (
    AvatarInvalid,
    DependencyMissing,
    InvalidInput,
    LipwireError,
    NotFound,
    StorageFailed,
)
from lipwire.domain.frames import (
    AUDIO_WINDOW_SHAPE,
    CROP_PX,
    FEATURE_SIZE,
    FPS,
    MASK_COLUMNS,
    MASK_ROWS,
    MOUTH_BORDER_PX,
    MOUTH_PX,
    SAMPLE_RATE_HZ,
    CropRect,
    Float32Array,
    UInt8Array,
    ping_pong,
)

__all__ = [
    "AUDIO_WINDOW_SHAPE",
    "CROP_PX",
    "FEATURE_SIZE",
    "FPS",
    "MASK_COLUMNS",
    "MASK_ROWS",
    "MOUTH_BORDER_PX",
    "MOUTH_PX",
    "SAMPLE_RATE_HZ",
    "AvatarInvalid",
    "CropRect",
    "DependencyMissing",
    "Float32Array",
    "InvalidInput",
    "LipwireError",
    "NotFound",
    "StorageFailed",
    "UInt8Array",
    "ping_pong",
]
