"""Compiling what an avatar shows while nobody speaks, with its network on this process's cores."""

from functools import partial

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar
from lipwire.domain import AudioWindows, Call, CompileProgress, InvalidInput, Mouths
from lipwire.domain.callbacks import WAITING
from lipwire.engine import Engine
from lipwire.serving import RestMouths

_WHAT = "compiling the mouths for silence"


def compile_rest(frames: Avatar, progress: CompileProgress) -> None:
    """Have the network make the avatar's mouths at rest (shown while nobody speaks), and keep them
    in its compiled part "rest". Does nothing where that part is complete. ``frames`` is the avatar,
    opened with its network. ``progress(done, total, what)`` is called meanwhile with counts of
    frames; both are 0 while another process compiles this avatar.

    Raises InvalidInput where the avatar has no audio encoder of its own, AvatarInvalid where its
    network or audio encoder fails, StorageFailed where the part can be written nowhere.
    """
    if frames.encoder_path is None:
        raise InvalidInput(
            f"avatar {frames.name} has no audio encoder of its own, which says what its network"
            " hears of silence"
        )
    silence = silence_window(AudioEncoder.open(frames.encoder_path))[None]
    with Engine() as engine:
        model = engine.load(frames.model_path)

        def draw(first: int, windows: AudioWindows, call: Call | None) -> Mouths:
            del call
            return engine.infer(model, frames.crops(first, len(windows)), windows)

        with RestMouths(frames, draw, silence) as rest:
            rest.fill(
                lambda done, total: progress(done, total, _WHAT),
                waiting=partial(progress, 0, 0, WAITING),
            )
