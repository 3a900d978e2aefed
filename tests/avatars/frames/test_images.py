import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from lipwire.avatars.frames.imagefacts import image_facts
from lipwire.avatars.frames.images import MAX_SIDE_PX, decode_image, image_size
from lipwire.domain import AvatarInvalid, UInt8Array

PICTURE = np.random.default_rng(7).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def encoded(extension: str, *options: int) -> bytes:
    return cv2.imencode(extension, PICTURE, list(options))[1].tobytes()


PNG = encoded(".png")
JPEG = encoded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
PROGRESSIVE = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


@pytest.mark.parametrize("data", [PNG, JPEG, PROGRESSIVE, JPEG + b"appended"])
def test_decodes_as_opencv_does(data: bytes) -> None:
    assert image_size(data, "a") == (53, 37)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    assert np.array_equal(decode_image(data, "a"), expected)


@pytest.mark.parametrize("data", [PNG, JPEG, PROGRESSIVE])
@pytest.mark.parametrize("kept", [1, 3, 20, 50, 0.3, 0.9, -1, -13])
def test_refuses_a_file_cut_off(
    data: bytes, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    length = int(kept * len(data)) if isinstance(kept, float) else kept
    if data[:2] == b"\xff\xd8" and kept == -1:
        length = -2
    with pytest.raises(AvatarInvalid, match=r"^frames/frame_0003\.png "):
        decode_image(data[:length], "frames/frame_0003.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a is empty"),
        (b"GIF89a\0\0", "begins with b'GIF8'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cut off or damaged"),
        (b"\xff\xd8\xff" + bytes(100), "cut off or damaged"),
    ],
)
def test_says_what_it_is_instead(data: bytes, message: str) -> None:
    with pytest.raises(AvatarInvalid, match=message):
        decode_image(data, "a")


def test_refuses_flipped_bits_in_a_png() -> None:
    damaged = bytearray(PNG)
    damaged[len(PNG) // 2] ^= 1
    with pytest.raises(AvatarInvalid, match="cannot be decoded; it is damaged"):
        decode_image(bytes(damaged), "a")


def test_refuses_a_forged_size_before_memory_is_taken() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    forged = PNG[:8] + chunk + PNG[33:]
    with pytest.raises(
        AvatarInvalid, match=f"1048576x1048576; each side has to be 1 to {MAX_SIDE_PX}"
    ):
        decode_image(forged, "a")


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND"])
def test_a_chunk_that_says_it_is_larger_than_the_file_is_damage(kind: bytes) -> None:
    """OpenCV would take 4 GiB for it."""
    place = PNG.index(kind) - 4
    forged = PNG[:place] + b"\xff\0\0\0" + PNG[place + 4 :]
    with pytest.raises(AvatarInvalid, match="is cut off or damaged"):
        decode_image(forged, "a")


def test_facts_of_a_header_that_is_cut_off_are_the_usual_ones() -> None:
    for length in range(len(PNG)):
        assert image_facts(PNG[:length]).bits == 8


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF of one directory with one entry."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return head + struct.pack(f"{order}H", 1) + entry + bytes(4)


def with_exif(data: bytes, content: bytes) -> bytes:
    """A PNG or JPEG file with EXIF in the place where cameras put it."""
    if data.startswith(b"\x89PNG"):
        kind = b"eXIf" + content
        chunk = struct.pack(">I", len(content)) + kind + struct.pack(">I", zlib.crc32(kind))
        return data[:33] + chunk + data[33:]
    segment = b"Exif\0\0" + content
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


UPRIGHT: dict[int, Callable[[UInt8Array], UInt8Array]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stored", [PNG, JPEG, PROGRESSIVE], ids=["png", "jpeg", "progressive"])
def test_orientation_is_that_of_exif_and_of_opencv(
    stored: bytes, order: str, orientation: int
) -> None:
    data = with_exif(stored, exif(orientation, order))
    pixels = decode_image(data, "a")
    assert np.array_equal(pixels, UPRIGHT[orientation](decode_image(stored, "a")))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    assert np.array_equal(pixels, expected)
    assert image_facts(data).orientation == orientation


@pytest.mark.parametrize("stored", [PNG, JPEG], ids=["png", "jpeg"])
@pytest.mark.parametrize(
    "content",
    [b"", b"II", exif(6)[:12], exif(0), exif(9), b"II*\0\xff\xff\xff\xff", b"XX" + exif(6)[2:]],
)
def test_orientation_that_makes_no_sense_is_none(stored: bytes, content: bytes) -> None:
    data = with_exif(stored, content)
    assert image_facts(data).orientation == 1
    assert np.array_equal(decode_image(data, "a"), decode_image(stored, "a"))


@pytest.mark.parametrize(
    ("picture", "alpha", "bits"),
    [
        (PICTURE, False, 8),
        (np.dstack([PICTURE, PICTURE[..., :1]]), True, 8),
        (PICTURE.astype(np.uint16) * 257, False, 16),
        (PICTURE[..., 0], False, 8),
    ],
)
def test_alpha_and_depth_are_read(picture: UInt8Array, alpha: bool, bits: int) -> None:
    facts = image_facts(cv2.imencode(".png", picture)[1].tobytes())
    assert (facts.alpha, facts.bits) == (alpha, bits)


@pytest.mark.parametrize("alpha", [255, 128, 0])
def test_the_colour_under_alpha_is_shown(alpha: int) -> None:
    layered = np.dstack([PICTURE, np.full(PICTURE.shape[:2], alpha, np.uint8)])
    assert np.array_equal(decode_image(cv2.imencode(".png", layered)[1].tobytes(), "a"), PICTURE)


@pytest.mark.parametrize(
    "picture",
    [
        PICTURE[..., 0],
        np.dstack([PICTURE, PICTURE[..., :1]]),
        PICTURE.astype(np.uint16) * 257,
    ],
    ids=["grey", "alpha", "16 bits"],
)
def test_every_depth_becomes_three_channels_of_eight_bits(picture: UInt8Array) -> None:
    data = cv2.imencode(".png", picture)[1].tobytes()
    pixels = decode_image(data, "a")
    assert pixels.shape == (37, 53, 3)
    assert pixels.dtype == np.uint8
