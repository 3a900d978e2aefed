"""The option ``--sandbox`` of the commands that compile and check avatars."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lipwire.avatars.sandbox.sandbox import Sandbox

SANDBOX_HELP: Final = (
    "Do it in a process of its own with limits: 10 minutes, and on Linux 4 GiB of memory. For an"
    " avatar from a stranger."
)


def opened_sandbox(wanted: bool) -> "Sandbox | None":
    """Return the sandbox, which compiles and checks avatars in a process of its own with the usual
    limits of time and memory, where it is ``wanted``; else None."""
    if not wanted:
        return None
    from lipwire.avatars.sandbox.sandbox import Sandbox

    return Sandbox()
