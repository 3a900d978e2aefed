"""From what a person names, a folder or an archive, to the avatars in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lipwire.avatars.importing.sources import Source, folder_sources
from lipwire.avatars.importing.unpacking.archives import SUFFIXES, is_archive, stem_of, unpacked
from lipwire.domain import InvalidInput, NotFound


@contextmanager
def opened_sources(path: Path) -> Iterator[list[Source]]:
    """Context manager: yield a list of the avatars to import in the folder or archive (ZIP or tar)
    ``path``, at least one; an archive stays unpacked for the block.

    Raises NotFound where nothing is there, InvalidInput for a file that is no archive,
    AvatarInvalid for an archive that is damaged or encrypted, or holds links, devices, paths that
    lead out of it, or too many or too large files, and StorageFailed where there is no room to
    unpack it.
    """
    if path.is_dir():
        yield folder_sources(path, str(path), _name_of(path))
        return
    if not is_archive(path):
        if path.exists():
            raise InvalidInput(
                f"{path} is neither a folder nor an archive; read are {', '.join(SUFFIXES)}"
            )
        raise NotFound(f"no folder {path}; there is nothing, or a link to nothing")
    with unpacked(path) as folder:
        yield folder_sources(folder, path.name, stem_of(path))


def _name_of(folder: Path) -> str:
    """The folder's name as it was given, be it a link's; "." and ".." have another one."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name
