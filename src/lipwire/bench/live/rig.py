"""Avatars under several names, and servers in this process that show them live."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from lipwire.audio import sample_speech
from lipwire.avatars import Avatar, find_avatar
from lipwire.bench.coldstart import write_package
from lipwire.bench.randomnetworks import Widths, write_tiny_audio_encoder, write_tiny_unet
from lipwire.config import InferenceConfig, load_compositing_config, load_inference_config
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array
from lipwire.wiring.choosing import MakeEngine, make_engine
from lipwire.wiring.resting import compile_rest
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

_SIZE: Final = (320, 240)
_NARROW: Final[Widths] = (4, 4, 4, 4, 4)
_FRAMES: Final = 12
_HERE: Final = {
    "LIPWIRE_SERVER__HOST": "127.0.0.1",
    "LIPWIRE_SERVER__PORT": "0",
    "LIPWIRE_LOGGING__LOG_COMPOSITING_TIMES": "false",
    "LIPWIRE_LOGGING__LOG_INFERENCE_TIMES": "false",
    "LIPWIRE_WEB__ENABLED": "false",
}


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses, HOST:PORT, of a compositing and an inference server that are ready; ``inference``
    is empty where one server does the work of both."""

    compositing: str
    inference: str
    """Empty where both are one server."""


class Rig:
    """Avatars in a folder for measurements of live sessions, and servers for them on one kind of
    device."""

    def __init__(self, root: Path, speech: Float32Array, *, use_gpu: bool) -> None:
        """``root`` holds the avatars ``live-0``, ``live-1`` and so on, and ``speech`` is what
        sessions say, (n,) float32 at 16 kHz. Networks run on a GPU where ``use_gpu``, else on the
        processor."""
        self.speech: Final = speech
        self._root = {"LIPWIRE_MODELS_ROOT": str(root)}
        self._device = {"LIPWIRE_ONNX__USE_CUDA": str(use_gpu).lower()}

    @property
    def packages(self) -> list[Path]:
        """The folders of the avatars, ordered by their names."""
        return sorted(Path(self._root["LIPWIRE_MODELS_ROOT"]).iterdir())

    def said(self, seconds: float) -> Float32Array:
        """Return ``seconds`` of speech, (n,) float32 at 16 kHz: one sentence, repeated as often as
        needed."""
        return np.resize(self.speech, round(seconds * SAMPLE_RATE_HZ))

    @contextmanager
    def serve(
        self,
        *,
        by_speed: bool = True,
        make_engine: MakeEngine = make_engine,
        precision: str = "float32",
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Servers]:
        """Give the ``with`` block the address of a server for the avatars, in this process, that is
        compositing and inference server at once; stop it afterwards. A context manager. Without
        ``by_speed`` it admits more sessions than it may be able to carry. ``make_engine(device)``
        returns the engine that runs its networks on ``device``. ``precision`` is the setting
        ``onnx.precision``, "auto" or "float32"; ``more`` are other settings, as environment
        variables (``LIPWIRE_...``) with their values."""
        with open_serve(
            load_compositing_config(None, {**_HERE, **self._root, **more}),
            self._inference(precision),
            tell=lambda _heading, _facts: None,
            by_speed=by_speed,
            make_engine=make_engine,
        ) as server:
            yield Servers(f"127.0.0.1:{server.port}", "")

    @contextmanager
    def two_servers(self, *, precision: str = "float32") -> Iterator[Servers]:
        """Give the ``with`` block the addresses of an inference server and of a compositing server
        that asks it, both in this process, and stop them afterwards. A context manager.
        ``precision`` is the setting ``onnx.precision`` of the inference server, "auto" or
        "float32"."""
        with ExitStack() as stack:
            inference = stack.enter_context(
                open_inference_server(
                    self._inference(precision, _HERE | self._root),
                    tell=lambda _heading, _facts: None,
                )
            )
            address = f"127.0.0.1:{inference.port}"
            compositing = stack.enter_context(
                open_compositing_server(
                    load_compositing_config(
                        None, _HERE | self._root | {"LIPWIRE_INFERENCE_SERVER__URL": address}
                    ),
                    tell=lambda _heading, _facts: None,
                )
            )
            yield Servers(f"127.0.0.1:{compositing.port}", address)

    def _inference(
        self, precision: str, more: Mapping[str, str] = MappingProxyType({})
    ) -> InferenceConfig:
        chosen = {"LIPWIRE_ONNX__PRECISION": precision}
        return load_inference_config(None, {**more, **self._device, **chosen})


@contextmanager
def rig(*, avatars: int, quick: bool, use_gpu: bool = False) -> Iterator[Rig]:
    """Give the ``with`` block a ``Rig`` whose folder has one avatar under ``avatars`` names
    (live-0, live-1 and so on), compiled for live sessions; the folder is removed afterwards. A
    context manager. The avatar is the demo avatar, or, with ``quick``, one whose network takes a
    millisecond. The rig's servers run networks on a GPU where ``use_gpu``, else on the processor.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-live-") as folder:
        package = _quick_package(Path(folder) / "package") if quick else find_avatar("demo")
        with Avatar.open(package, parts=frozenset({"jpeg"})) as frames:
            compile_rest(frames, lambda *_: None)
        root = Path(folder) / "avatars"
        root.mkdir()
        for number in range(avatars):
            (root / f"live-{number}").symlink_to(package)
        yield Rig(root, sample_speech(), use_gpu=use_gpu)


def _quick_package(package: Path) -> Path:
    write_package(package, _FRAMES, _SIZE, _NARROW, seed=0)
    write_tiny_unet(package / "checkpoint" / "model_best.onnx", seed=0)
    write_tiny_audio_encoder(package / "checkpoint" / "audio_encoder.onnx", seed=0)
    return package
