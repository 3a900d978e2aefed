"""Compiling what an avatar shows while nobody speaks, with its network on this process's cores."""

from functools import partial

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar
from lipwire.domain import AudioWindows, Call, CompileProgress, InvalidInput, Mouths
from lipwire.engine import Engine
from lipwire.serving import RestMouths

_WHAT = "compiling the mouths for silence"


def compile_rest(frames: Avatar, progress: CompileProgress) -> None:
    """Make the compiled part ``rest`` of the avatar ``frames``, which was opened with its network;
    nothing where it is there. ``progress`` is called while something is made.

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
                waiting=partial(
                    progress, 0, 0, "waiting for another process that compiles this avatar"
                ),
            )
