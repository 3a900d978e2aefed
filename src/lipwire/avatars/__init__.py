"""Avatars on disk: packages as people make them, and the compiled form that is mapped into
memory."""

from lipwire.avatars.avatar import Avatar
from lipwire.avatars.compiling import DEFAULT_QUALITY, CompiledParts, Progress, compile_avatar
from lipwire.avatars.finding import find_avatar, list_avatars, search_folders
from lipwire.avatars.package import AvatarPackage, Pictures, read_package
from lipwire.avatars.parts import Part
from lipwire.avatars.problems import Problem
from lipwire.avatars.settings import AvatarSettings, ColourOrder
from lipwire.avatars.validation import validate_package

__all__ = [
    "DEFAULT_QUALITY",
    "Avatar",
    "AvatarPackage",
    "AvatarSettings",
    "ColourOrder",
    "CompiledParts",
    "Part",
    "Pictures",
    "Problem",
    "Progress",
    "compile_avatar",
    "find_avatar",
    "list_avatars",
    "read_package",
    "search_folders",
    "validate_package",
]
