"""Avatars on disk: packages as people make them, and the compiled form that is mapped into
memory."""

from lipwire.avatars.avatar import Avatar
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.checks.problems import Problem
from lipwire.avatars.checks.validation import validate_package
from lipwire.avatars.compiled.compiling import DEFAULT_QUALITY, CompiledParts, compile_avatar
from lipwire.avatars.compiled.parts import ALWAYS, FRAME_PARTS, FramePart, Part
from lipwire.avatars.compiled.storage import homes
from lipwire.avatars.compiled.versions import PackageVersion, package_version
from lipwire.avatars.finding import find_avatar, list_avatars, search_folders
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.observer import FrameObserver
from lipwire.avatars.package import AvatarPackage, read_package
from lipwire.avatars.packagesettings import AvatarSettings, ColourOrder

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
    "FrameObserver",
    "FramePart",
    "PackageVersion",
    "Part",
    "Pictures",
    "Problem",
    "compile_avatar",
    "find_avatar",
    "homes",
    "list_avatars",
    "package_version",
    "read_package",
    "search_folders",
    "validate_package",
]
