"""The table of what is to be rendered."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lipwire.domain import InvalidInput, NotFound
from lipwire.domain.filekinds import VIDEO_SUFFIXES
from lipwire.domain.wording import shown

_NEEDED: Final = ("avatar", "audio", "out")
_ALLOWED: Final = (*_NEEDED, "start_frame")
_MOST_PROBLEMS: Final = 10
_LARGEST_START: Final = 10**9


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """How videos are made: x264's ``preset`` (its name, such as "veryfast") and quality ``crf`` (0,
    the best, to 51), and the ``precision`` of networks on processors: "float32", or "auto", which
    uses bfloat16 for speech of 10 s or more where the processor has units for it."""

    preset: str = "veryfast"
    crf: int = 18
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class RenderJob:
    """One video: ``avatar``, a name, or the path of a folder where it has a slash in it, says the
    recording ``audio``, from the avatar's frame ``start_frame`` (from 0) on, in the file ``out``.
    ``line`` is the number of the line of the table that describes the job, from 1."""

    line: int
    avatar: str
    audio: Path
    out: Path
    start_frame: int = 0

    def key(self, settings: RenderSettings) -> str:
        """Return 32 hexadecimal digits that differ where the video would be another one: a hash of
        ``avatar``, ``start_frame``, the recording's path, size and time of change, and
        ``settings``. ``out`` and ``line`` are no part of it, nor is what is in the avatar's folder.
        Raises NotFound where the recording cannot be read."""
        try:
            found = self.audio.stat()
        except OSError as error:
            raise NotFound(f"{self.audio}: {error.strerror}") from None
        parts = [
            self.avatar,
            str(self.audio),
            found.st_size,
            found.st_mtime_ns,
            self.start_frame,
            asdict(settings),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def read_jobs(table: Path) -> list[RenderJob]:
    """Read the CSV file ``table``, in UTF-8, and return a job for each line, in their order: first
    a line of column names (avatar, audio, out and, if wanted, start_frame), then a line for each
    video. Empty lines are ignored. Paths that are not absolute begin at the folder of ``table``; an
    avatar that has a slash in it is the path of a folder.

    Raises NotFound where there is no such file, and InvalidInput where it cannot be read or has no
    job, or where a line is no job, a recording or the folder of a video is not there, or two lines
    have the same video, or the video of one line is the recording of another; the message names the
    first ten lines and what is wrong with each.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"there is no file {table}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InvalidInput(f"{table} cannot be read: {why}") from None
    jobs, problems = [], []
    for line, found in _rows(text, table):
        if isinstance(found, str):
            problems.append(f"line {line}: {found}")
        else:
            jobs.append(found)
    problems += _clashes(jobs)
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        told = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        raise InvalidInput(f"{table} is no table of renders: {'; '.join(told)}")
    if not jobs:
        raise InvalidInput(f"{table} has no line but that of the names; a line a video is needed")
    return jobs


def _rows(text: str, table: Path) -> Iterator[tuple[int, RenderJob | str]]:
    """Each line's number, and its job or what is wrong with it."""
    reader = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        _check_names(names, table)
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, _job(reader.line_num, names, row, table.absolute().parent)
    except csv.Error as error:
        yield reader.line_num, f"no CSV: {error}"


def _check_names(names: list[str], table: Path) -> None:
    lacking = [name for name in _NEEDED if name not in names]
    unknown = [name for name in names if name not in _ALLOWED]
    twice = sorted({name for name in names if names.count(name) > 1})
    if lacking or unknown or twice:
        what = (
            f"{lacking[0]} is missing"
            if lacking
            else f"{shown(unknown[0])} is none"
            if unknown
            else f"{twice[0]} is there twice"
        )
        raise InvalidInput(
            f"the first line of {table} has to name the columns {', '.join(_NEEDED)} and, if"
            f" wanted, start_frame, with commas between them: {what}"
        )


def _job(line: int, names: list[str], row: list[str], folder: Path) -> RenderJob | str:
    if len(row) != len(names):
        return f"{len(row)} fields, the first line has {len(names)}"
    field = dict(zip(names, (each.strip() for each in row), strict=True))
    for name in _NEEDED:
        if not field[name]:
            return f"{name} is empty"
    start = field.get("start_frame") or "0"
    if not (start.isascii() and start.isdigit() and int(start) <= _LARGEST_START):
        return f"start_frame is {shown(start)}; allowed are whole numbers from 0 to 10^9"
    avatar = field["avatar"]
    if "/" in avatar or "\\" in avatar:
        avatar = str(folder / avatar)
    audio, out = folder / field["audio"], folder / field["out"]
    if not audio.is_file():
        return f"there is no recording {audio}"
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        return f"{out} ends in {out.suffix or 'nothing'}; allowed are {', '.join(VIDEO_SUFFIXES)}"
    if not out.parent.is_dir():
        return f"there is no folder {out.parent} to write {out.name} to"
    if out.is_dir():
        return f"{out} is a folder"
    return RenderJob(line, avatar, audio, out, int(start))


def _clashes(jobs: Iterable[RenderJob]) -> list[str]:
    jobs = list(jobs)
    recordings = {job.audio.resolve(): job.line for job in jobs}
    lines: dict[Path, int] = {}
    problems = []
    for job in jobs:
        out = job.out.resolve()
        if out in lines:
            problems.append(f"line {job.line}: {job.out} is what line {lines[out]} writes")
        elif out in recordings:
            problems.append(
                f"line {job.line}: {job.out} is the recording of line {recordings[out]}"
            )
        lines.setdefault(out, job.line)
    return problems
