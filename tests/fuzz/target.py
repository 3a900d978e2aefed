"""A parser that meets foreign bytes, as the fuzz tests and ``benchmarks/fuzz.py`` try it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lipwire.domain import LipwireError

Try = Callable[[bytes], str]
"""Hands one input to the parser. Returns what came of it in a word: ``read``, or the kind of the
error. Whatever is no error of the tree is raised."""

LONGEST = 2000
"""Characters of an error's message. It has the value seen, and that is cut."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser with valid inputs for it."""

    name: str
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    opened: Callable[[Path], AbstractContextManager[Try]]
    """Context manager that is given a folder for files, and gives what tries an input."""


def target(
    name: str, seeds: tuple[bytes, ...], parse: Callable[[bytes], object], *words: bytes
) -> Target:
    """A parser that is a function of bytes."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Try]:
        yield lambda data: tried(lambda: parse(data))

    return Target(name, seeds, words, opened)


def file_target(
    name: str,
    seeds: tuple[bytes, ...],
    file: str,
    parse: Callable[[Path], object],
    *words: bytes,
) -> Target:
    """A parser that reads the file of a path. ``file`` is its name."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Try]:
        path = folder / file

        def run(data: bytes) -> str:
            path.write_bytes(data)
            return tried(lambda: parse(path))

        yield run

    return Target(name, seeds, words, opened)


def tried(call: Callable[[], object]) -> str:
    """What comes of ``call``. Raises whatever is no clear error of the tree."""
    try:
        call()
    except LipwireError as error:
        check_clear(str(error))
        return type(error).__name__
    return "read"


def check_clear(message: str, *, escaped: bool = False) -> None:
    """One line that says something; where it is ``escaped`` on its way, of any characters."""
    assert message.strip(), "an error without a message"
    assert escaped or message.isprintable(), message
    assert len(message) <= LONGEST, message
