"""Functions that callers pass in to be called with the progress of something."""

from collections.abc import Callable, Mapping
from typing import Final

Progress = Callable[[int, int], None]
"""Called after each frame with how many are done and how many there are in all. Of a recording that
was not gone through before, the latter is what its file says, and right at the end."""

CompileProgress = Callable[[int, int, str], None]
"""Called as (done, total, what) from the thread that compiles an avatar; total is 0 where it is not
known."""
WAITING: Final = "waiting for another process that compiles this avatar"
"""What ``CompileProgress`` is told now and then while that is so, with 0 of 0 done."""

Tell = Callable[[str, Mapping[str, object]], None]
"""Called with what becomes true while a server starts: a heading, and facts by name."""
