"""Runs of several avatars' networks in one batch, on a GPU."""

from typing import Any

from lipwire.domain import AudioWindows, FrameNumbers
from lipwire.engine import Engine, Request
from lipwire.scheduling import Across
from lipwire.serving.networks import NetworkKey


def run_across(engine: Engine) -> Across[NetworkKey]:
    """Return the rule by which a scheduler puts frames of several networks into one run, and the
    function that makes this run with ``engine``: what ``Scheduler`` takes as ``across``.

    Networks with equal ``NetworkKey.group`` may be in one run. The function takes, for each
    network, its key, crops, (N, 320, 320, 3) uint8, or numbers of frames (``FrameNumbers``), and
    windows, (N, 32, 16, 16) float32, and returns mouths of (N, 320, 320, 3) uint8. It raises
    Unavailable where a network was unloaded.
    """

    def run(parts: list[tuple[NetworkKey, Any, AudioWindows]]) -> list[Any]:
        requests = [
            Request(
                key.model(), faces.tolist() if isinstance(faces, FrameNumbers) else faces, windows
            )
            for key, faces, windows in parts
        ]
        return list(engine.infer_together(requests))

    return Across(lambda key: key.group, run)
