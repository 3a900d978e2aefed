"""The option ``--sandbox`` of the commands that compile and check avatars."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lipwire.avatars.sandbox.sandbox import Sandbox

SANDBOX_HELP: Final = (
    "Do it in a process of its own with limits: 10 minutes, and on Linux 4 GiB of memory. For an"
    " avatar from a stranger."
)


def opened_sandbox(wanted: bool) -> "Sandbox | None":
    """Return a sandbox where ``wanted``, else None. A sandbox compiles and checks avatars in a
    process of its own, which may take at most 10 minutes and, on Linux, at most 4 GiB of memory."""
    if not wanted:
        return None
    from lipwire.avatars.sandbox.sandbox import Sandbox

    return Sandbox()
