"""What an avatar will be judged by, from the studio's held-out sequences."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from lipwire.audio import decode_audio
from lipwire.domain import FPS, SAMPLE_RATE_HZ, CropRect, Float32Array, UInt8Array, ping_pong
from lipwire.evaluation import Index, Interior, SequenceEntry, Viseme, write_index
from lipwire.training.coarticulation import Phone, closures
from lipwire.training.dataset import PairDataset, read_base, read_picture, read_rectangles
from lipwire.training.visemes import PRESS, SILENCE

TRUTH_CRF: Final = 10
"""Of the truth, in RGB: 48 dB, far above what is measured with it, and 9 kB a frame."""
TAIL_FRAMES: Final = 25
"""A sequence that ends at rest is given so much silence."""
HEARD_FRAMES: Final = 2
"""Closures count from this frame on: a recording that begins inside an /m/ does not tell of it."""
AT_REST: Final = 0.12
"""Controls below this are those of a mouth at rest."""
SETTLED_S: Final = 0.12
"""Pauses count from this long after a sound until this long before the next."""
MOUTH_SHARE: Final = 0.1
LIPS_SHARE: Final = 0.25
"""The mouth region covers the blocks that move at least this part as far as the one that moves
most; the lips box those that hang together with that one."""

_VISEMES: Final[Sequence[tuple[str, Sequence[float]]]] = (
    # Weights of open, wide, round, press, bite, tongue: the frame with the highest sum shows it.
    ("a", (1.0, 0.0, -0.5, -2.0, -2.0, -0.3)),
    ("i", (-0.3, 1.0, -1.0, -2.0, -2.0, -0.3)),
    ("u", (-0.3, -1.0, 1.0, -2.0, -2.0, -0.3)),
    ("o", (0.8, -1.0, 0.8, -2.0, -2.0, -0.3)),
    ("m b p", (0.2, 0.0, 0.0, 2.0, -1.0, 0.0)),
    ("f v", (0.2, 0.0, 0.0, -1.0, 2.0, 0.0)),
    ("l n t", (0.3, 0.0, -0.3, -2.0, -2.0, 1.0)),
)


def write_evaluation(studio: Path, folder: Path) -> None:
    """Write ``folder``, the ``evaluation`` folder of a package, by which its network is judged. It
    gets, of each sequence that is not trained on (a folder in ``eval`` of the studio folder
    ``studio``), the speech (``NAME.flac``), the pictures that a perfect network would make
    (``NAME.mp4``) and their mouth controls (``NAME.npy``), and an index of all. Sequences without
    pictures are left out.

    Raises FileExistsError where ``folder`` exists, OSError where it cannot be written or a
    sequence's controls are missing, and InvalidInput where the studio's rectangles, base frames or
    pairs are missing or wrong, or a sequence's recording cannot be decoded. Files that were written
    before the error stay.
    """
    folder.mkdir(parents=True)
    entries = []
    for sequence in sorted(path for path in (studio / "eval").glob("*") if path.is_dir()):
        truth = _truth(sequence)
        if not truth:
            continue
        controls = np.load(sequence / "controls.npy").astype(np.float32)[: len(truth)]
        if len(controls) == len(truth) and controls[-1].max() < AT_REST:
            # A pause at the end costs nothing: at rest the truth is the base frame.
            truth += [_resting(studio, len(truth) + extra) for extra in range(TAIL_FRAMES)]
            controls = np.concatenate(
                [controls, np.zeros((TAIL_FRAMES, controls.shape[1]), np.float32)]
            )
        entry = _describe(sequence, controls)
        _write_flac(folder / f"{entry.name}.flac", sequence / "audio.wav", len(truth))
        _write_truth(folder / f"{entry.name}.mp4", truth)
        np.save(folder / f"{entry.name}.npy", controls)
        entries.append(entry)
    movement = PairDataset(studio, border_px=0).movement()
    size = read_rectangles(studio / "crop_rects.json")[0]
    index = Index(
        mouth_region=moving_box(movement, MOUTH_SHARE, size),
        lips_box=moving_box(movement, LIPS_SHARE, size, joined=True),
        interior=Interior(),
        sequences=tuple(entries),
    )
    write_index(folder, index)


def moving_box(
    movement: Float32Array, share: float, size: CropRect, *, joined: bool = False
) -> tuple[int, int, int, int]:
    """Return (x1, y1, x2, y2) of the box round what moves, in pixels from the top left of a crop
    rectangle that is as large as ``size``; x2 and y2 are exclusive.

    ``movement`` is (rows, columns) float32: the crop is divided into so many blocks of equal size,
    and the numbers, in any unit, say how much each of them moves. Blocks count that move at least
    ``share`` (0 to 1) as far as the one that moves most; with ``joined`` only those of them that
    are connected to that one by their sides. Where no block moves, the box is the whole rectangle.
    """
    moving = movement >= share * movement.max()
    if joined:
        _, labels = cv2.connectedComponents(moving.astype(np.uint8), connectivity=4)
        moving = labels == labels.flat[int(movement.argmax())]
    rows, columns = np.nonzero(moving)
    wide, high = size.width / movement.shape[1], size.height / movement.shape[0]
    return (
        math.floor(columns.min() * wide),
        math.floor(rows.min() * high),
        math.ceil((columns.max() + 1) * wide),
        math.ceil((rows.max() + 1) * high),
    )


def _resting(studio: Path, index: int) -> UInt8Array:
    """What the rectangle shows at frame ``index`` (back and forth) while nobody speaks."""
    rectangles = read_rectangles(studio / "crop_rects.json")
    number = ping_pong(index, len(rectangles))
    box = rectangles[number]
    return read_base(studio, number)[box.y1 : box.y2, box.x1 : box.x2]


def _truth(sequence: Path) -> list[UInt8Array]:
    """The rendered frames of a sequence from its beginning, as many as follow without a gap."""
    frames: list[UInt8Array] = []
    while (picture := read_picture(sequence / f"{len(frames):04d}.png")) is not None:
        frames.append(picture)
    return frames


def _describe(sequence: Path, controls: np.ndarray) -> SequenceEntry:
    """Spans and visemes of a sequence, from its phones (where given) and its true controls."""
    count = len(controls)
    listed = sequence / "phones.json"
    phones = (
        [
            Phone(str(symbol), float(start), float(end))
            for symbol, start, end in json.loads(listed.read_text())
        ]
        if listed.is_file()
        else []
    )
    sealed = tuple(
        span
        for start, end in closures(phones)
        if (span := _frames_inside(start, end, count))
        and span[0] >= HEARD_FRAMES
        and controls[span[0] : span[1], PRESS].max() > 0.9
    )
    silent = tuple(
        span
        for start, end in _silences(phones, count / FPS)
        if (span := _frames_inside(start, end, count))
    )
    visemes = []
    for label, weights in _VISEMES:
        score = controls @ np.asarray(weights, np.float32)
        visemes.append(Viseme(label=label, frame=int(score.argmax())))
    if silent:
        visemes.append(Viseme(label="silence", frame=(silent[-1][0] + silent[-1][1]) // 2))
    note = sequence / "voice.txt"
    voice = note.read_text().strip() if note.is_file() else ""
    return SequenceEntry(
        name=sequence.name, voice=voice, closures=sealed, pauses=silent, visemes=tuple(visemes)
    )


def _silences(phones: Sequence[Phone], length_s: float) -> list[tuple[float, float]]:
    """Settled pauses in seconds. Before the first and after the last phone nothing is said."""
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    if not spoken:
        return []
    found, clock = [], -SETTLED_S
    for phone in spoken:
        found.append((clock + SETTLED_S, phone.start_s - SETTLED_S))
        clock = phone.end_s
    found.append((clock + SETTLED_S, length_s))
    return [(start, end) for start, end in found if end > start]


def _frames_inside(start_s: float, end_s: float, count: int) -> tuple[int, int] | None:
    """Frames whose middle lies in the interval: first and one past the last; None for none."""
    first = max(0, math.ceil(start_s * FPS - 0.5))
    end = min(count, math.floor(end_s * FPS - 0.5) + 1)
    return (first, end) if first < end else None


def _write_flac(path: Path, source: Path, frames: int) -> None:
    """16 kHz mono, cut or filled with silence to the length of the truth."""
    pcm = decode_audio(source)[: frames * SAMPLE_RATE_HZ // FPS]
    pcm = np.pad(pcm, (0, frames * SAMPLE_RATE_HZ // FPS - len(pcm)))
    whole = np.clip(np.rint(pcm * 32767), -32768, 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_truth(path: Path, frames: Sequence[UInt8Array]) -> None:
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264rgb", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        stream.options = {"crf": str(TRUTH_CRF), "preset": "slower"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
