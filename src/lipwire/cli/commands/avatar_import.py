"""``lipwire avatar import``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lipwire.cli.exits import EXIT_FAILED
from lipwire.cli.recordings import DASH
from lipwire.cli.sandboxing import SANDBOX_HELP, opened_sandbox

if TYPE_CHECKING:
    from lipwire.avatars import Problem
    from lipwire.avatars.importing.examining import Material
    from lipwire.avatars.importing.networks import Checkpoints, Kind
    from lipwire.avatars.importing.report import Report
    from lipwire.avatars.importing.sources import Source
    from lipwire.avatars.importing.writing import Target
    from lipwire.domain import LipwireError

_CLIP: Final = "clip"


@dataclass(slots=True)
class _Outcome:
    """What became of one source."""

    source: str
    name: str
    report: Report
    path: Path | None = None
    recording: Path | None = None
    """What is said in the clip; None for the sentence that comes with Lipwire."""
    clip: Path | None = None
    warnings: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "clip": None if self.clip is None else str(self.clip),
            "found": [
                {"part": row.part, "found": row.found, "use": row.use} for row in self.report.rows
            ],
            "assumed": self.report.assumed,
            "notes": self.report.notes,
            "warnings": [problem.message for problem in self.warnings],
        }


def command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of SyncTalk_2D or of packages, or archives (.zip, .tar.gz) of them.",
            show_default=False,
        ),
    ] = None,
    configs: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            help="Import every avatar that this server's configuration file names. May be given"
            " twice: one file names the networks, the other the frames.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The avatar's name; else the folder's.", show_default=False),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="The folder of avatars that it is put into; else one where it is found by name.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(
            "--network",
            help="The network, an ONNX file or a checkpoint; else it is looked for.",
            show_default=False,
        ),
    ] = None,
    audio_encoder: Annotated[
        Path | None,
        typer.Option(
            "--audio-encoder",
            help="The audio encoder, an ONNX file or a checkpoint; else it is looked for.",
            show_default=False,
        ),
    ] = None,
    landmarks_size: Annotated[
        str | None,
        typer.Option(
            "--landmarks-size",
            metavar="WIDTHxHEIGHT",
            help="Size of the pictures that landmarks are of; else that of the frames.",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            "--clip",
            help="The video of the avatar speaking that is rendered to look at; else NAME-clip.mp4"
            " beside the avatar.",
            show_default=False,
        ),
    ] = None,
    no_clip: Annotated[bool, typer.Option("--no-clip", help="Render no video.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an avatar that is there.")
    ] = False,
    sandbox: Annotated[bool, typer.Option("--sandbox", help=SANDBOX_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Make avatars of what SyncTalk_2D and programs like it leave behind.

    What is found and what is assumed is told in a table. Sources are only read. An avatar appears
    when it is whole and valid, or not at all. Then a clip of it is rendered, where it has an audio
    encoder. Exits with 1 when one of several failed, or a clip; where the only one failed, with 2
    for bad input and 1 for anything else.
    """
    from lipwire.avatars.finding import folder_for_new
    from lipwire.cli.commands.render import destination
    from lipwire.domain import InvalidInput, LipwireError, StorageFailed
    from lipwire.domain.filekinds import VIDEO_SUFFIXES

    if not sources and not configs:
        raise InvalidInput("nothing to import; name a folder, an archive or --config FILE")
    if clip is not None and no_clip:
        raise InvalidInput("--clip and --no-clip are given; one of them at most")
    if clip is not None:
        if clip.suffix.lower() not in VIDEO_SUFFIXES:
            raise InvalidInput(
                f"--clip is {clip}; allowed are names in {', '.join(VIDEO_SUFFIXES)}"
            )
        destination(clip, None, force, DASH)
    size = _size(landmarks_size)
    outcomes: list[_Outcome] = []
    errors: list[LipwireError] = []
    importer = _Importer(to or folder_for_new(), force, dry_run, sandbox, clip, no_clip)
    with ExitStack() as stack:
        found = list(_every_source(sources or [], configs or [], stack, errors))
        if name is not None and len(found) > 1:
            raise InvalidInput(f"--name is for one avatar, and {len(found)} are there")
        if clip is not None and len(found) > 1:
            raise InvalidInput(f"--clip is for one avatar, and {len(found)} are there")
        for source in found:
            chosen = replace(
                source,
                name=name or source.name,
                renamed=name is not None,
                model=network or source.model,
                audio_encoder=audio_encoder or source.audio_encoder,
                landmarks_size=size,
            )
            try:
                outcome = importer.take(chosen)
            except LipwireError as error:
                errors.append(_naming(error, source.shown) if len(found) > 1 else error)
                continue
            outcomes.append(outcome)
            try:
                importer.render(outcome)
            except (LipwireError, OSError) as error:
                errors.append(StorageFailed(f"{outcome.path} is there, but no clip of it: {error}"))
            finally:  # after Ctrl-C as well: the avatar is there
                if not as_json:
                    _show(outcome, dry_run)
    if as_json:
        import json

        document = {
            "avatars": [outcome.to_dict() for outcome in outcomes],
            "errors": [str(error) for error in errors],
        }
        typer.echo(json.dumps(document, indent=2))
    if len(errors) == 1 and not outcomes:
        raise errors[0]
    for failed in errors:
        _say_error(failed)
    if errors:
        raise typer.Exit(EXIT_FAILED)


class _Importer:
    """Imports one source after another to one folder."""

    def __init__(
        self,
        folder: Path,
        force: bool,
        dry_run: bool,
        sandbox: bool,
        clip: Path | None,
        no_clip: bool,
    ) -> None:
        self._folder = folder
        self._force = force
        self._dry_run = dry_run
        self._sandbox = opened_sandbox(sandbox)
        self._clip = clip
        self._no_clip = no_clip
        self._taken: dict[str, tuple[str, Path]] = {}
        """Avatars that were made, or are not to be made of another source either: by their names,
        what they were made of, as it was named and as a path."""

    def take(self, source: Source) -> _Outcome:
        """Make the avatar; nothing is there after an error."""
        from lipwire.avatars.importing.examining import examine
        from lipwire.avatars.importing.report import Report
        from lipwire.avatars.importing.writing import Target, write_package
        from lipwire.cli.terminal import compile_progress
        from lipwire.domain import InvalidInput
        from lipwire.domain.names import canonical_name

        target = Target(self._folder, source.name, self._force)
        same = self._taken.get(canonical_name(source.name).casefold())
        if same is not None and same[1] == source.folder.resolve():
            raise InvalidInput(f"{source.shown} is named twice, and taken once")
        if same is not None:
            raise InvalidInput(
                f"{source.shown} has the name of what {same[0]} became, {source.name}; import it by"
                " itself, with --name"
            )
        target.check(source.folder)
        report, checkpoints = Report(), _checkpoints()
        with compile_progress("importing") as progress:
            progress(0, 0, f"looking at {source.shown}")
            material = examine(source, checkpoints, report)
            outcome = _Outcome(source.shown, source.name, report, recording=material.recording)
            outcome.clip = self._clip_of(material, target, report)
            self._taken[canonical_name(source.name).casefold()] = (
                source.shown,
                source.folder.resolve(),
            )
            if self._dry_run:
                outcome.clip = None
                return outcome
            outcome.warnings = write_package(
                material, target, checkpoints, report, progress=progress, sandbox=self._sandbox
            )
        outcome.path = target.path
        return outcome

    def render(self, outcome: _Outcome) -> None:
        """Render the clip, where there is to be one; ``clip`` is None after an error."""
        from lipwire.cli.commands.import_clip import render_clip

        if outcome.path is None or outcome.clip is None:
            return
        rows = outcome.report.rows
        clip, outcome.clip = outcome.clip, None
        outcome.report.rows = [row for row in rows if row.part != _CLIP]
        render_clip(outcome.path, outcome.recording, clip)
        outcome.clip, outcome.report.rows = clip, rows

    def _clip_of(self, material: Material, target: Target, report: Report) -> Path | None:
        """Where the clip goes; None where there is to be none, or none can be."""
        from lipwire.cli.commands.import_clip import CLIP_S, clip_beside, sentence_there
        from lipwire.domain import InvalidInput

        if self._no_clip:
            return None
        clip = clip_beside(target.path) if self._clip is None else self._clip
        recording = material.recording
        why = ""
        if material.encoder is None:
            why = "there is no audio encoder; --audio-encoder names one"
        elif self._clip is None and self._sandbox is not None:
            why = "rendering is not done in the sandbox; --clip FILE renders one all the same"
        elif self._clip is None and clip.exists() and not self._force:
            why = f"{clip} is there already; --force replaces it"
        elif recording is None and not sentence_there():
            why = "there is nothing to say"
        if why and self._clip is not None:
            raise InvalidInput(f"--clip {self._clip}: {why}")
        if why:
            report.note(f"no clip is rendered: {why}")
            return None
        for folder in (target.path, material.source.folder):
            if clip.resolve().is_relative_to(folder.resolve()):
                raise InvalidInput(f"--clip {clip} is in {folder}; name a file somewhere else")
        said = recording.name if recording is not None else "the sentence that comes with Lipwire"
        report.row(_CLIP, f"{CLIP_S} seconds at most of {said}", str(clip))
        return clip


def _every_source(
    paths: list[Path], configs: list[Path], stack: ExitStack, errors: list[Any]
) -> Iterator[Source]:
    """The avatars in all that was named; what cannot be used at all goes into ``errors``."""
    from lipwire.avatars.importing.configs import configured_sources
    from lipwire.avatars.importing.opening import opened_sources
    from lipwire.domain import AvatarInvalid, LipwireError

    for path in paths:
        try:
            found = stack.enter_context(opened_sources(path))
        except LipwireError as error:
            errors.append(error)
        else:
            yield from found
    if configs:
        configured = configured_sources(configs)
        for line in configured.told:
            typer.echo(f"assumed: {line}", err=True)
        errors += (AvatarInvalid(line) for line in configured.faults)
        yield from configured.sources


def _size(text: str | None) -> tuple[int, int] | None:
    """The width and height that ``text`` says."""
    from lipwire.domain import InvalidInput

    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})", text, re.ASCII)
    if found is None:
        raise InvalidInput(f"--landmarks-size is {text!r}; allowed is WIDTHxHEIGHT, as 1280x720")
    return int(found[1]), int(found[2])


def _checkpoints() -> Checkpoints:
    from lipwire.avatars.importing.networks import Checkpoints

    def describe(path: Path, kind: Kind) -> str:
        _check_torch(path)
        from lipwire.training.family import describe_checkpoint

        return describe_checkpoint(path, kind)

    def convert(path: Path, kind: Kind, onnx_path: Path) -> None:
        _check_torch(path)
        from lipwire.training.family import convert_checkpoint

        convert_checkpoint(path, kind, onnx_path)

    return Checkpoints(describe, convert)


def _check_torch(path: Path) -> None:
    from importlib.util import find_spec

    from lipwire.domain import DependencyMissing

    if find_spec("torch") is None:
        raise DependencyMissing(
            f"{path.name} is a PyTorch checkpoint, and PyTorch is not there; `pip install"
            " lipwire[train]` brings it"
        )


def _show(outcome: _Outcome, dry_run: bool) -> None:
    from lipwire.domain.wording import escaped

    typer.echo(f"{escaped(outcome.name)}, from {escaped(outcome.source)}")
    rows = outcome.report.rows
    parts = max(len(row.part) for row in rows)
    found = max(len(row.found) for row in rows)
    for row in rows:
        typer.echo(f"  {row.part:<{parts}}  {row.found:<{found}}  -> {row.use}")
    for line in outcome.report.assumed:
        typer.echo(f"  assumed: {line}")
    for line in outcome.report.notes:
        typer.echo(f"  note: {line}")
    for problem in outcome.warnings:
        typer.echo(f"  {typer.style('warning', fg=typer.colors.YELLOW)}: {problem.message}")
    if dry_run:
        typer.echo("  nothing was written")
        return
    typer.echo(f"  {escaped(str(outcome.path))} is valid")
    if outcome.clip is not None:
        typer.echo(f"  {escaped(str(outcome.clip))} shows it")


def _naming(error: LipwireError, source: str) -> LipwireError:
    """``error``, with the source that it is of in its message."""
    text = str(error)
    return error if source in text else type(error)(f"{source}: {text}")


def _say_error(error: Exception) -> None:
    from lipwire.domain.wording import one_line

    label = typer.style("error", fg=typer.colors.RED)
    typer.echo(f"{label}: {one_line(str(error))}", err=True)
