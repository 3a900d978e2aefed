"""Which program made a folder, and those whose avatars cannot be used.

Sources: https://github.com/ZiqiaoPeng/SyncTalk_2D (``data_utils/process.py``),
https://github.com/anliyuan/Ultralight-Digital-Human (the same), and
https://github.com/lipku/LiveTalking (``avatars/*/genavatar.py``).
"""

from pathlib import Path
from typing import Final, Literal

from lipwire.avatars.importing.facerects import LANDMARKS
from lipwire.avatars.importing.sources import BODY_FOLDER
from lipwire.avatars.packagesettings import SETTINGS_NAME
from lipwire.domain import AvatarInvalid
from lipwire.domain.avatarfiles import FRAMES_NAME, RECTANGLES_NAME, VIDEO_NAME
from lipwire.domain.wording import shown

Layout = Literal["SyncTalk_2D's data", "a package of videos", "a package of frames", "Lipwire's"]

PACKAGE_INFO: Final = "package_info.json"
BODY_VIDEO: Final = "full_body_video.mp4"
FEATURES: Final = "aud_ave.npy"
_OTHER_FEATURES: Final = {"aud_hu.npy": "hubert", "aud_wenet.npy": "wenet"}
_LIVETALKING: Final = "this is an avatar of LiveTalking"
_NOTHING_READ: Final = "nothing of it was read"


def recognised(folder: Path, shown_as: str) -> Layout:
    """Return the name of the layout that ``folder`` has, for people, such as "SyncTalk_2D's data";
    names of files alone are looked at.

    Raises AvatarInvalid where it is of a program whose avatars cannot be used, with what would be
    needed, and where nothing of an avatar is there. ``shown_as`` names the folder in messages.
    """
    _refuse_others(folder, shown_as)
    layout = _layout_of(folder)
    if layout is None:
        raise AvatarInvalid(
            f"{shown_as} holds no avatar that is known: {BODY_FOLDER}/ with {LANDMARKS}/,"
            f" {FRAMES_NAME}/ with {RECTANGLES_NAME}, or {BODY_VIDEO} is looked for{_below(folder)}"
        )
    return layout


def _below(folder: Path) -> str:
    """The end of a message, which says where avatars are in the folders of ``folder``."""
    try:
        names = sorted(each.name for each in folder.iterdir() if each.is_dir() and _layout_of(each))
    except OSError:
        return ""
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"; {shown(names[0])}{more} in it would be: name the folders themselves"


def _layout_of(folder: Path) -> Layout | None:
    if (folder / BODY_FOLDER).is_dir() or (folder / LANDMARKS).is_dir():
        return "SyncTalk_2D's data"
    if (folder / PACKAGE_INFO).is_file() or (folder / BODY_VIDEO).is_file():
        return "a package of videos"
    if (folder / SETTINGS_NAME).is_file() or (folder / VIDEO_NAME).is_file():
        return "Lipwire's"
    rectangles = (RECTANGLES_NAME, "cache/crop_rectangles.json", "crop_rectangles.json")
    if (folder / FRAMES_NAME).is_dir() or any((folder / each).is_file() for each in rectangles):
        return "a package of frames"
    return None


def _refuse_others(folder: Path, shown_as: str) -> None:
    there = {
        name
        for name in ("full_imgs", "face_imgs", "coords.pkl", "latents.pt", "mask_coords.pkl")
        if (folder / name).exists()
    }
    if "full_imgs" in there and len(there) > 1:
        raise AvatarInvalid(f"{shown_as}: {_LIVETALKING}{_of_livetalking(folder, there)}")
    other = [(name, kind) for name, kind in _OTHER_FEATURES.items() if (folder / name).is_file()]
    if other and not (folder / FEATURES).is_file():
        name, kind = other[0]
        raise AvatarInvalid(
            f"{shown_as}: {name} is there and {FEATURES} is not: this was made for networks that"
            f" hear {kind} features, of Ultralight-Digital-Human (160 pixels) or SyncTalk_2D with"
            f" --asr {kind}; served are networks of 320 pixels and 'ave' features, so one has to be"
            f" trained with --asr ave; {_NOTHING_READ}"
        )


def _of_livetalking(folder: Path, there: set[str]) -> str:
    if there & {"latents.pt", "mask_coords.pkl"} or (folder / "avator_info.json").is_file():
        return (
            " for MuseTalk: latents.pt holds pictures of 256 pixels for a network that hears"
            " Whisper's features and is one for all people. Missing are a network of 320 pixels"
            " with 'ave' features, trained on this person, and rectangles as crop_rects.json"
            f" (coords.pkl is a pickle, in the order x1, y1, x2, y2); {_NOTHING_READ}"
        )
    if (folder / "ultralight.pth").is_file():
        return (
            " for Ultralight-Digital-Human: ultralight.pth is a network of 160 pixels that hears"
            " hubert features. Missing are a network of 320 pixels with 'ave' features, trained on"
            " the recording, and rectangles as crop_rects.json (coords.pkl is a pickle, in the"
            f" order x1, y1, x2, y2); {_NOTHING_READ}"
        )
    return (
        " for Wav2Lip: face_imgs/ holds pictures of 96 pixels or more for a network that hears mel"
        " spectrograms and is one for all people. Missing are a network of 320 pixels with 'ave'"
        " features, trained on this person, and rectangles as crop_rects.json (coords.pkl is a"
        f" pickle, in the order y1, y2, x1, x2); {_NOTHING_READ}"
    )
