"""Render the demo character: the room, the idle loop, and mouths with their controls.

Run it in the studio's environment (requirements/studio.txt), the stages in this order:

``python -m studio.render room --out DIR``
``python -m studio.render loop --out DIR --controls mouths.npy``
``python -m studio.render eval --out DIR --controls controls.npy --name NAME``

DIR is the dataset folder that :mod:`lipwire.training.dataset` reads. Everything already rendered is
kept, so a stopped run goes on where it was.
"""

import argparse
from pathlib import Path

from lipwire.domain import DependencyMissing, InvalidInput
from lipwire.training.stages import run_stage
from studio.folder import StudioFolder, read_controls, read_room
from studio.storage import make_folder


def render_room_once(out: Path) -> None:
    """The stage `room`. Raises `DependencyMissing` without Blender, and what `render_room` does."""
    path = out / "room.png"
    if path.exists():
        print(f"{path} is there already")
        return
    make_folder(out)
    try:
        from studio.blender.room import render_room
    except ImportError as error:
        raise _without_blender(error) from error
    render_room(path)


def render_mouths(
    stage: str, out: Path, controls_path: Path | None, per_frame: int, name: str
) -> None:
    """The stages `loop` and `eval`. All input is checked before Blender is loaded.

    Raises `DependencyMissing` without Blender, and what `StudioFolder` does.
    """
    if controls_path is None:
        raise InvalidInput(f"the stage `{stage}` needs --controls FILE.npy")
    if per_frame < 1:
        raise InvalidInput(f"--per-frame is {per_frame}; at least 1")
    if name in ("", ".", "..") or Path(name).name != name:
        raise InvalidInput(
            f"--name is {name!r}; the name of a folder, without its place, is needed"
        )
    controls = read_controls(controls_path)
    read_room(out)
    try:
        from studio.blender.stage import Stage
    except ImportError as error:
        raise _without_blender(error) from error
    folder = StudioFolder(out, Stage())
    if stage == "loop":
        folder.render_loop(controls, per_frame)
    else:
        folder.render_sequence(name, controls)


def _without_blender(error: ImportError) -> DependencyMissing:
    return DependencyMissing(
        f"Blender's module is not installed ({error}); requirements/studio.txt lists what is needed"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["room", "loop", "eval"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--controls", type=Path, help=".npy of (n, 6) mouth controls")
    parser.add_argument("--per-frame", type=int, default=4, help="mouths for each frame of a round")
    parser.add_argument("--name", default="heldout", help="name of the held-out sequence")
    chosen = parser.parse_args(arguments)

    def render() -> None:
        if chosen.stage == "room":
            render_room_once(chosen.out)
        else:
            render_mouths(chosen.stage, chosen.out, chosen.controls, chosen.per_frame, chosen.name)

    return run_stage(render)


if __name__ == "__main__":
    raise SystemExit(main())
