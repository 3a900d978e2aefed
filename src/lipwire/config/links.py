"""Whether links in an avatar's package may lead out of it.

A package comes from somebody else, and a link in it could show any file of this machine in frames
or errors, so by default none leads out. Folders that are made of such links, as Hugging Face's
cache makes them, are somebody's own: then a variable of the environment allows it, for this process
and those that it starts. The option of the commands and the key of the servers set it.
"""

import os
from typing import Final

VARIABLE: Final = "LIPWIRE_ALLOW_LINKS_OUTSIDE"
HOW: Final = (
    f"where all packages are your own, {VARIABLE}=1, --allow-links, or allow_links_outside in the"
    " servers' files allow it"
)
"""For the messages about links that lead out."""

_YES: Final = frozenset({"1", "true", "t", "yes", "y", "on"})


def links_may_lead_out() -> bool:
    """Return whether a symbolic link in an avatar's package, or in the folder of a network, may
    lead to a file outside of it: True where the environment variable LIPWIRE_ALLOW_LINKS_OUTSIDE is
    now 1, true, yes or on."""
    return os.environ.get(VARIABLE, "").strip().lower() in _YES


def let_links_lead_out() -> None:
    """Allow symbolic links that lead out of avatars' packages, from now on, in this process and
    those that it starts: set the environment variable LIPWIRE_ALLOW_LINKS_OUTSIDE."""
    os.environ[VARIABLE] = "1"
