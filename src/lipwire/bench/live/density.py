"""How many live sessions a machine holds, computed from what one costs, and tried.

A session that speaks costs 25 mouths a second, and for each the frame, its sound and its way to the
client. Mouths are timed on all cores at once, each core with the network of another avatar: cores
that are halves of one, and memory that they share, are in the figure then. The rest is timed in a
server whose network answers at once.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.audio import AudioEncoder, extract_windows, sample_speech
from lipwire.avatars import Avatar
from lipwire.bench.live import measures
from lipwire.bench.live.rig import rig
from lipwire.config import usable_cores
from lipwire.domain import AudioWindows, Crops, Mouths
from lipwire.engine import Engine, Model
from lipwire.engine.special.openvino import why_not
from lipwire.serving.leases import SHARE
from lipwire.session.live import FRAME_MS

LARGE_CORES: Final = 32
"""A larger server that the figures are computed for, of cores like these."""
_FPS: Final = 1000 / FRAME_MS
_MOST: Final = 256
_MOST_QUICK: Final = 3
_SAMPLES: Final = 8
_RUNNERS: Final = {
    "float32": "ONNX Runtime, float32",
    "auto": "OpenVINO, bfloat16",
}


@dataclass(frozen=True, slots=True)
class Density:
    """What a live session that speaks costs on this machine, with networks run by ``runner``.
    ``mouth_ms`` is how long a mouth takes on one core, ``mouths_a_second`` how many all ``cores``
    make together, and ``besides_share`` which share of one core a session takes besides its mouths,
    client included. ``held`` is how many sessions were tried and kept up, ``held_until`` a text
    about what happened with one more, and ``allowed`` how many sessions a server admits."""

    runner: str
    cores: int
    mouth_ms: float
    """Time of a mouth where one core alone makes them."""
    mouths_a_second: float
    """Of all cores together."""
    besides_share: float
    """Of a core, for what a session costs besides its mouths, the client's side included."""
    held: int
    """Sessions that were tried and held."""
    held_until: str
    """What one more changed."""
    allowed: int
    """Sessions that a server with these avatars admits."""

    @property
    def session_share(self) -> float:
        """How many cores one live session that speaks takes, such as 0.4: for its mouths and for
        all else, client included."""
        return _FPS * self.cores / self.mouths_a_second + self.besides_share

    def sessions(self, cores: int) -> int:
        """Return how many live sessions that speak fit on a machine with ``cores`` cores like
        these. A tenth of the cores is kept free, for frames that take longer; servers do the same
        when they admit sessions."""
        return int(SHARE * cores / self.session_share)


def run_density(
    seconds: float = 10.0,
    *,
    quick: bool = False,
    tell: Callable[[str], None] = lambda _line: None,
) -> list[Density]:
    """Measure what live sessions of the demo avatar cost, with its network on the processor; each
    figure is measured for ``seconds``. Returns one result for each way to run the network
    (``runner``): float32, and bfloat16 where the processor has it. With ``quick``, an avatar whose
    network takes a millisecond is used, and float32 alone. ``tell(line)`` is called with a text
    when a measurement begins."""
    cores = usable_cores()
    found = []
    with rig(avatars=max(2, cores), quick=quick) as avatars:
        tell("a session besides its mouths")
        with avatars.serve(by_speed=False, make_engine=lambda _device: _AtOnce()) as servers:
            besides = measures.processor_share(avatars, servers, seconds, speaking=True)
        for precision in ("float32",) if quick or why_not() else ("float32", "auto"):
            runner = _RUNNERS[precision]
            tell(f"{runner}: mouths of one core, and of {cores}")
            alone, together = _made_a_second(avatars.packages[:cores], precision, seconds)
            with avatars.serve(precision=precision) as servers:
                if precision == "auto":
                    measures.specialise(avatars, servers)
                measures.latency(avatars, servers, min(seconds, 4.0))  # its speed is known then
                allowed = measures.capacity(servers)
            tell(f"{runner}: sessions that are held")
            with avatars.serve(by_speed=False, precision=precision) as servers:
                if precision == "auto":
                    measures.specialise(avatars, servers)
                most = _MOST_QUICK if quick else _MOST
                held, why = measures.carried(avatars, servers, seconds, most)
            found.append(
                Density(runner, cores, 1000 / alone, together, besides, held, why, allowed)
            )
    return found


def _made_a_second(packages: list[Path], precision: str, seconds: float) -> tuple[float, float]:
    """Mouths a second of one core, and of one for each of ``packages``."""
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(threads=1))
        opened = [
            stack.enter_context(Avatar.open(package, parts=frozenset({"jpeg"})))
            for package in packages
        ]
        loaded = [_load(engine, avatar, precision) for avatar in opened]
        return _mouths_a_second(engine, loaded[:1], seconds), _mouths_a_second(
            engine, loaded, seconds
        )


def _load(engine: Engine, avatar: Avatar, precision: str) -> tuple[Model, Crops, AudioWindows]:
    """Its network, and frames that it is asked for: real ones, as the trial of a specialised one
    needs them."""
    assert avatar.encoder_path is not None
    heard = extract_windows(sample_speech(), AudioEncoder.open(avatar.encoder_path))
    crops = np.concatenate([avatar.crops(number, 1) for number in range(_SAMPLES)])
    windows = np.ascontiguousarray(heard[: 10 * _SAMPLES : 10])
    model = engine.load(avatar.model_path, source=avatar.network_source)
    if precision == "auto":
        engine.specialise(model, crops, windows, lanes=min(usable_cores(), 4))
    return model, crops[:1], windows[:1]


def _mouths_a_second(
    engine: Engine, loaded: list[tuple[Model, Crops, AudioWindows]], seconds: float
) -> float:
    """Frames a second that ``engine`` makes in ``seconds``, a thread for each of ``loaded``."""
    for model, crops, windows in loaded:
        engine.infer(model, crops, windows)

    def rate(model: Model, crops: Crops, windows: AudioWindows) -> float:
        begun_s = time.perf_counter()
        count = 0
        while time.perf_counter() < begun_s + seconds or not count:
            engine.infer(model, crops, windows)
            count += 1
        return count / (time.perf_counter() - begun_s)

    with ThreadPoolExecutor(len(loaded)) as threads:
        return sum(threads.map(rate, *zip(*loaded, strict=True)))


class _AtOnce(Engine):
    """Answers with black mouths at once."""

    def __init__(self) -> None:
        super().__init__(threads=1)

    def infer(self, model: Model, crops: Crops, windows: AudioWindows) -> Mouths:
        return np.zeros_like(crops)
