"""Everything a server does without a socket: from speech to mouths, and from mouths to frames.

Whoever serves, over gRPC or otherwise, opens a ``Call`` for each request and hands it to what is
here; nothing of gRPC is needed.
"""

from lipwire.serving.across import run_across
from lipwire.serving.backend import (
    Backend,
    BackendHealth,
    DrawnFloatMouths,
    DrawnMouths,
    GpuStatus,
    MakeCrops,
    ModelStatus,
)
from lipwire.serving.compositor import (
    Batch,
    CompositedBatch,
    Compositor,
    FrameFormat,
    PictureFormat,
    compose_frames,
    encode_frames,
)
from lipwire.serving.devices import Devices
from lipwire.serving.encoders import AudioEncoders
from lipwire.serving.leases import LEASE_S, FrameCost, LeasesStats, SpeedLeases
from lipwire.serving.loadedavatars import LoadedAvatar, Network, load_avatar, load_network
from lipwire.serving.local import LocalBackend
from lipwire.serving.networkfacts import Speed
from lipwire.serving.networks import NetworkKey, ServerDevice, run_on
from lipwire.serving.placement import Placement
from lipwire.serving.restmouths import RestMouths
from lipwire.serving.speech import RawAudio, windows_from_raw

__all__ = [
    "LEASE_S",
    "AudioEncoders",
    "Backend",
    "BackendHealth",
    "Batch",
    "CompositedBatch",
    "Compositor",
    "Devices",
    "DrawnFloatMouths",
    "DrawnMouths",
    "FrameCost",
    "FrameFormat",
    "GpuStatus",
    "LeasesStats",
    "LoadedAvatar",
    "LocalBackend",
    "MakeCrops",
    "ModelStatus",
    "Network",
    "NetworkKey",
    "PictureFormat",
    "Placement",
    "RawAudio",
    "RestMouths",
    "ServerDevice",
    "Speed",
    "SpeedLeases",
    "compose_frames",
    "encode_frames",
    "load_avatar",
    "load_network",
    "run_across",
    "run_on",
    "windows_from_raw",
]
