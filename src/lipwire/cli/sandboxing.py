"""The option ``--sandbox`` of the commands that compile and check avatars."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lipwire.avatars.sandbox.sandbox import Sandbox

SANDBOX_HELP: Final = (
    "Do it in a process of its own with limits: 10 minutes, and on Linux 4 GiB of memory. For an"
    " avatar from a stranger."
)


def opened_sandbox(wanted: bool) -> "Sandbox | None":
    """Where ``wanted``, return a sandbox, which compiles and checks avatars in a process of its
    own: for 10 minutes at most and, on Linux, with 4 GiB of memory; else None."""
    if not wanted:
        return None
    from lipwire.avatars.sandbox.sandbox import Sandbox

    return Sandbox()
