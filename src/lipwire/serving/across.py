"""Runs of several avatars' networks in one batch, on a GPU."""

from typing import Any

from lipwire.domain import AudioWindows, FrameNumbers
from lipwire.engine import Engine, Request
from lipwire.scheduling import Across
from lipwire.serving.networks import NetworkKey


def run_across(engine: Engine) -> Across[NetworkKey]:
    """Return what ``Scheduler`` takes as ``across``: the rule that says which networks may be run
    in one batch, and the function that runs such a batch with ``engine``.

    Networks with equal ``NetworkKey.group`` may be in one batch. The function is called with a list
    of (key, faces, windows), one for each network. ``faces`` are its N crops, (N, 320, 320, 3)
    uint8, or N numbers of its avatar's frames (``FrameNumbers``), and ``windows`` its N audio
    windows, (N, 32, 16, 16) float32. It returns a list with the mouths of each network, (N, 320,
    320, 3) uint8. It raises InvalidInput for arrays of another shape and for more than 50 frames in
    all, AvatarInvalid where a network fails, Overloaded where the GPU has no room, Unavailable
    where a network was unloaded or the GPU failed, and RuntimeError where the engine is closed.
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
