"""Judge an avatar: run its held-out speech through the real engine and compare with the truth."""

from pathlib import Path

from lipwire.audio import decode_audio
from lipwire.avatars import find_avatar
from lipwire.domain import CompileProgress, NotFound, Progress, StorageFailed
from lipwire.evaluation.heldout import judge_material
from lipwire.evaluation.material import read_material
from lipwire.evaluation.recording import judge_recording
from lipwire.evaluation.report import Report
from lipwire.evaluation.stage import set_stage
from lipwire.wiring import open_performer


def evaluate(
    avatar: str | Path,
    out_dir: Path,
    *,
    audio: Path | None = None,
    compiling: CompileProgress | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure how well the mouths of ``avatar`` (a name, or its folder as a Path) fit the speech,
    write pictures into the folder ``out_dir``, which is made where it is missing, and return the
    figures. Takes about as long as rendering the speech.

    Where ``audio`` is None, the avatar's held-out sequences, which its network was not trained on,
    are compared with their truth. Else ``audio`` is the file of any recording, and the mouth's
    opening is compared with the loudness of its speech. ``compiling(done, total, what)`` is called
    while the avatar is compiled, ``progress(done, total)`` after each frame.

    Raises NotFound where there is no such avatar, or neither held-out sequences nor ``audio``;
    InvalidInput where ``avatar`` cannot be a name, ``audio`` cannot be decoded, or the avatar's
    crop rectangles, the parts of its frames that are drawn anew, differ in size; AvatarInvalid
    where the package is broken; and StorageFailed where something cannot be written.
    """
    path = avatar if isinstance(avatar, Path) else find_avatar(avatar)
    name = path.resolve().name
    material = None
    try:
        material = read_material(path)
    except NotFound:
        if audio is None:
            raise
    if material is not None and audio is None and not material.index.sequences:
        raise NotFound(f"{name} lists no held-out sequences; give a recording (--audio FILE)")
    pcm = decode_audio(audio) if audio is not None else None
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot make the folder {out_dir}: {error.strerror}") from error
    with open_performer(path, parts=frozenset(), progress=compiling) as performer:
        stage = set_stage(path, performer)
        if audio is not None and pcm is not None:
            return judge_recording(stage, material, audio, pcm, out_dir, progress)
        if material is None:
            raise NotFound(f"{name} has no held-out sequences; give a recording (--audio FILE)")
        return judge_material(stage, material, path, out_dir, progress)
