"""Whether a package may have changed since it was opened, for about a dozen stats.

The token is for a registry that asks once a second for each avatar in use. It sees a package moved
or linked into the place of another, any change to the network, the audio encoder, the rectangles,
the settings or the video, and frames added, removed or replaced by renaming. It does not see a
frame picture that was overwritten where it lies: there are hundreds. Loading the avatar anew does
(see ``fingerprints``), and so does touching ``crop_rects.json``.
"""

import os
from pathlib import Path
from typing import Final

from lipwire.avatars.package import ENCODER_NAME, FRAMES_NAME, MODEL_NAME, VIDEO_NAME
from lipwire.avatars.rectangles import RECTANGLES_NAME
from lipwire.avatars.settings import SETTINGS_NAME
from lipwire.domain import NotFound

_LOOKED_AT: Final = (
    MODEL_NAME,
    ENCODER_NAME,
    RECTANGLES_NAME,
    SETTINGS_NAME,
    FRAMES_NAME,
    VIDEO_NAME,
)

PackageVersion = tuple[object, ...]
"""Equal for as long as nothing changed; otherwise without meaning."""


def package_version(path: Path) -> PackageVersion:
    """The token of the package in folder ``path``. Raises NotFound where there is no folder."""
    root = os.fspath(path)
    try:
        # Not its times: the compiled form comes and goes inside.
        folder = os.stat(os.path.join(root, ""))  # noqa: PTH116, PTH118 - a third of Path's price
    except (OSError, ValueError) as error:
        raise NotFound(f"avatar {path.name} is gone; its folder is not there any more") from error
    facts: list[object] = [folder.st_dev, folder.st_ino]
    for name in _LOOKED_AT:
        try:
            found = os.stat(f"{root}/{name}")  # noqa: PTH116
        except OSError:
            facts.append(None)
        else:
            facts.append((found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    return tuple(facts)
