from __future__ import annotations

import errno
import shutil
import signal
import struct
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.api import talkingavatar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Lipwire


def write_wav(path: Path, seconds: float, rate_hz: int = 16_000) -> Path:
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    samples = 0.3 * np.sin(2 * np.pi * 220 * times_s)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((samples * 32767).astype(np.int16).tobytes())
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", 0.4)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A place in a folder of its own, which shows what was left behind."""
    (tmp_path / "films").mkdir()
    return tmp_path / "films" / "out.mp4"


@pytest.mark.slow
@pytest.mark.parametrize(("options", "asked"), [((), 1), (("--precision", "float32"), 0)])
def test_long_speech_is_in_float32_where_that_is_asked_for(
    lipwire: Lipwire,
    avatar_package: Path,
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    asked: int,
) -> None:
    specialised: list[object] = []

    def none(performer: object, lanes: int) -> tuple[None, str]:
        specialised.append(performer)
        return None, "no units"

    monkeypatch.setattr(talkingavatar, "specialised", none)
    long = write_wav(tmp_path / "long.wav", 10.1)
    outcome = lipwire("render", avatar_package, long, "-o", out, *options)
    assert outcome.code == 0
    assert "bfloat16" not in outcome.out
    assert len(specialised) == asked


@pytest.mark.slow
def test_a_video_is_written_and_summed_up(
    lipwire: Lipwire, avatar_package: Path, recording: Path, out: Path
) -> None:
    outcome = lipwire("render", avatar_package, recording, "-o", out)
    assert outcome.code == 0
    assert outcome.out.startswith(f"{out}: 0.4 s of 320x240 in ")
    assert " fps, " in outcome.out
    assert "10 frames" in outcome.out
    with av.open(str(out), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.slow
def test_quality_settings_reach_the_encoder(
    lipwire: Lipwire, avatar_package: Path, recording: Path, out: Path
) -> None:
    sizes = []
    for settings in (["--crf", 10], ["--crf", 40], ["--crf", 10, "--preset", "ultrafast"]):
        assert lipwire("render", avatar_package, recording, "-fo", out, *settings).code == 0
        sizes.append(out.stat().st_size)
    assert sizes[1] < sizes[0] / 2
    assert sizes[2] > sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["-o", "--frames"])
def test_frames_are_written_to_a_folder(
    lipwire: Lipwire, avatar_package: Path, recording: Path, out: Path, way: str
) -> None:
    folder = out.with_name("frames")
    outcome = lipwire("render", avatar_package, recording, way, folder, "--quality", 60)
    assert outcome.code == 0
    assert len(list(folder.glob("frame_*.jpg"))) == 10
    refused = lipwire("render", avatar_package, recording, way, folder)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert lipwire("render", avatar_package, recording, way, folder, "--force").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["-o", "--frames"])
def test_a_link_is_written_through_and_stays(
    lipwire: Lipwire, avatar_package: Path, recording: Path, tmp_path: Path, way: str
) -> None:
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "talking.mp4", tmp_path / "disk" / "real.mp4"
    link.symlink_to(real)
    assert lipwire("render", avatar_package, recording, way, link).code == 0
    first = real.stat().st_ino
    assert lipwire("render", avatar_package, recording, way, link).code == 2
    assert lipwire("render", avatar_package, recording, way, link, "--force").code == 0
    assert real.stat().st_ino != first
    assert link.readlink() == real
    assert list(real.parent.iterdir()) == [real]


def test_the_recording_itself_is_never_replaced(
    lipwire: Lipwire, avatar_package: Path, recording: Path, tmp_path: Path
) -> None:
    before = recording.read_bytes()
    spoken = recording.rename(tmp_path / "spoken.mp4")
    link = tmp_path / "link.mp4"
    link.symlink_to(spoken)
    for out in (spoken, link):
        outcome = lipwire("render", avatar_package, spoken, "-o", out, "--force")
        assert outcome.code == 2
        assert outcome.err.endswith(
            f"{out} is the recording itself; name another file to write to\n"
        )
    assert spoken.read_bytes() == before


def test_a_file_is_replaced_only_by_force(
    lipwire: Lipwire, avatar_package: Path, recording: Path, out: Path
) -> None:
    out.write_bytes(b"precious")
    outcome = lipwire("render", avatar_package, recording, "-o", out)
    assert (outcome.code, outcome.err) == (
        2,
        f"error: {out} is there already; --force replaces it\n",
    )
    assert out.read_bytes() == b"precious"
    assert lipwire("render", avatar_package, recording, "-o", out, "--force").code == 0
    assert out.read_bytes() != b"precious"


def test_a_folder_of_other_things_is_never_replaced(
    lipwire: Lipwire, avatar_package: Path, recording: Path, out: Path
) -> None:
    (out.parent / "thesis.txt").write_text("years of work")
    outcome = lipwire("render", avatar_package, recording, "--frames", out.parent, "--force")
    assert outcome.code == 2
    assert "thesis.txt" in outcome.err
    assert (out.parent / "thesis.txt").read_text() == "years of work"


def test_the_profile_has_every_stage(
    lipwire: Lipwire, avatar_package: Path, recording: Path, out: Path
) -> None:
    outcome = lipwire("render", avatar_package, recording, "-o", out, "--profile")
    for stage in ("audio", "crop", "network", "compose", "encode", "everything"):
        assert stage in outcome.out


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_samples(path: Path) -> None:
    write_wav(path, 0)


def truncated(path: Path) -> None:
    write_wav(path, 1)
    path.write_bytes(path.read_bytes()[:9000])


def not_audio(path: Path) -> None:
    path.write_text("print('hello')")


def missing(path: Path) -> None:
    path.unlink()


def not_numbers(path: Path) -> None:
    """Format 3 of the WAV file is 32-bit float."""
    samples = np.full(1000, np.nan, np.float32).tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(form + data), b"WAVE") + form + data)


@pytest.mark.parametrize(
    "spoil",
    [empty, no_samples, truncated, not_audio, missing, not_numbers],
    ids=lambda f: f.__name__,
)
def test_a_bad_recording_is_one_line_and_leaves_nothing(
    lipwire: Lipwire,
    avatar_package: Path,
    recording: Path,
    out: Path,
    spoil: Callable[[Path], None],
) -> None:
    spoil(recording)
    shutil.rmtree(avatar_package / ".lipwire")
    outcome = lipwire("render", avatar_package, recording, "-o", out)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert list(out.parent.iterdir()) == []
    assert not (avatar_package / ".lipwire").exists()  # and nothing was compiled for it


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("crop_rects.json", b"[[0,0,9999,9999]]", 1),
        ("crop_rects.json", b"[[10,10,10,20]]", 1),
        ("crop_rects.json", b"not json", 1),
        ("checkpoint/model_best.onnx", b"not onnx", 1),
        ("checkpoint/audio_encoder.onnx", b"not onnx", 1),
        ("frames/frame_0003.png", b"not a picture", 1),
        ("avatar.yaml", b"fps: 30\n", 1),
    ],
)
def test_a_broken_avatar_is_one_line_and_leaves_nothing(
    lipwire: Lipwire,
    avatar_package: Path,
    recording: Path,
    out: Path,
    file: str,
    content: bytes,
    code: int,
) -> None:
    (avatar_package / file).write_bytes(content)
    outcome = lipwire("render", avatar_package, recording, "-o", out)
    assert outcome.code == code
    errors = [line for line in outcome.err.splitlines() if not line.endswith(" ...")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert Path(file).name.split(".")[0] in errors[0]
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one place to write to"),
        (["-o", "a.mp4", "--frames", "b"], "name one place to write to"),
        (["-o", "a.avi"], "a.avi ends in .avi; allowed are .mp4"),
        (["-o", "nowhere/a.mp4"], "there is no folder nowhere"),
        (["-o", "a.mp4", "--audio-encoder", "nowhere.onnx"], "nowhere.onnx"),
    ],
)
def test_bad_settings_are_one_line_and_code_2_or_1(
    lipwire: Lipwire,
    avatar_package: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = lipwire("render", avatar_package, recording, *arguments)
    assert outcome.code in (1, 2)
    assert message in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
    assert sorted(tmp_path.iterdir()) == before


# Says when the first signal was heard: signals of different numbers that wait may change places.
HEARD = """
import sys
from lipwire.cli import stopping
from lipwire.cli.main import main

end, heard = stopping._end, []

def end_and_tell(number, frame):
    try:
        end(number, frame)
    finally:  # another signal may come as soon as this is read
        if not heard:
            heard.append(number)
            print("heard", number, file=sys.stderr, flush=True)

stopping._end = end_and_tell
main()
"""


@contextmanager
def rendering(avatar_package: Path, out: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A long render, which has begun to write. ``before`` is what runs it."""
    recording = write_wav(out.parent.parent / "long.wav", 200)
    command = [sys.executable, "-c", HEARD, "render", str(avatar_package), str(recording)]
    with subprocess.Popen(
        [*before, *command, "-o", str(out)], stderr=subprocess.PIPE, text=True
    ) as process:

        def is_writing() -> bool:  # frames, into the file under its temporary name
            return any(file.stat().st_size > 1000 for file in out.parent.iterdir())

        until(lambda: process.poll() is not None or is_writing(), timeout_s=WAIT_S)
        assert process.poll() is None
        yield process


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Returns when it has heard."""
    process.send_signal(number)
    assert process.stderr is not None
    assert f"heard {number.value}\n" in process.stderr


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it still says until it ends."""
    assert process.stderr is not None
    said = process.stderr.read()
    process.wait(WAIT_S)
    return said


@pytest.mark.parametrize(
    ("how", "code", "word"),
    [
        pytest.param([signal.SIGINT], 130, "interrupted", marks=pytest.mark.slow),
        pytest.param([signal.SIGTERM], 143, "terminated", marks=pytest.mark.slow),
        pytest.param([signal.SIGHUP], 129, "terminal closed", marks=pytest.mark.slow),
        pytest.param([signal.SIGINT] * 2, 130, "interrupted", marks=pytest.mark.slow),
        pytest.param(
            [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM],
            129,
            "terminal closed",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stopped_render_leaves_nothing(
    avatar_package: Path, out: Path, how: list[signal.Signals], code: int, word: str
) -> None:
    with rendering(avatar_package, out) as process:
        stop(process, how[0])
        for number in how[1:]:
            process.send_signal(number)
        errors = rest_of(process)
    assert process.returncode == code
    assert errors.splitlines() == [word]
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "code"),
    [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
)
def test_signals_without_end_change_nothing_up_to_the_last_moment(
    avatar_package: Path, out: Path, first: signal.Signals, code: int
) -> None:
    with rendering(avatar_package, out) as process:
        stop(process, first)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGHUP)
    assert process.returncode == code
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_a_render_under_nohup_outlives_its_terminal(avatar_package: Path, out: Path) -> None:
    with rendering(avatar_package, out, "sh", "-c", 'trap "" HUP; exec "$@"', "sh") as process:
        process.send_signal(signal.SIGHUP)
        stop(process, signal.SIGTERM)
        rest_of(process)
    assert process.returncode == 143
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_is_one_line(
    lipwire: Lipwire,
    avatar_package: Path,
    recording: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if path.name == "frame_000003.jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    outcome = lipwire("render", avatar_package, recording, "--frames", out.with_name("frames"))
    assert outcome.code == 1
    errors = [line for line in outcome.err.splitlines() if not line.endswith(" ...")]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert list(out.parent.iterdir()) == []
