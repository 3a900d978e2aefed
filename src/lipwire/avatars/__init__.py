"""Avatars on disk: packages as people make them, and the compiled form that is mapped into
memory."""

from lipwire.avatars.avatar import Avatar
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.compiling import DEFAULT_QUALITY, CompiledParts, Progress, compile_avatar
from lipwire.avatars.finding import find_avatar, list_avatars, search_folders
from lipwire.avatars.holdings import ItemStats, Loaded, RegistryStats
from lipwire.avatars.package import AvatarPackage, Pictures, read_package
from lipwire.avatars.parts import ALWAYS, FRAME_PARTS, FramePart, Part
from lipwire.avatars.problems import Problem
from lipwire.avatars.registry import Registry
from lipwire.avatars.settings import AvatarSettings, ColourOrder
from lipwire.avatars.storage import homes
from lipwire.avatars.validation import validate_package
from lipwire.avatars.versions import PackageVersion, package_version

__all__ = [
    "ALWAYS",
    "DEFAULT_QUALITY",
    "FRAME_PARTS",
    "Avatar",
    "AvatarPackage",
    "AvatarSettings",
    "Catalog",
    "ColourOrder",
    "CompiledParts",
    "FramePart",
    "ItemStats",
    "Loaded",
    "PackageVersion",
    "Part",
    "Pictures",
    "Problem",
    "Progress",
    "Registry",
    "RegistryStats",
    "compile_avatar",
    "find_avatar",
    "homes",
    "list_avatars",
    "package_version",
    "read_package",
    "search_folders",
    "validate_package",
]
