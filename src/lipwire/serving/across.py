"""Runs of several avatars' networks in one batch, on a GPU."""

from typing import Any

from lipwire.domain import AudioWindows, FrameNumbers
from lipwire.engine import Engine, Request
from lipwire.scheduling import Across
from lipwire.serving.networks import NetworkKey


def run_across(engine: Engine) -> Across[NetworkKey]:
    """Return the rule by which a scheduler puts frames of several networks into one run, and the
    function that makes this run with ``engine``. Networks with equal ``NetworkKey.group`` may be in
    one run, which takes crops or numbers of frames and makes mouths of (N, 320, 320, 3) uint8."""

    def run(parts: list[tuple[NetworkKey, Any, AudioWindows]]) -> list[Any]:
        requests = [
            Request(
                key.model(), faces.tolist() if isinstance(faces, FrameNumbers) else faces, windows
            )
            for key, faces, windows in parts
        ]
        return list(engine.infer_together(requests))

    return Across(lambda key: key.group, run)
