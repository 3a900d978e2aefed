"""Standard input and output, tracks, damage and warnings of ``lipwire render``."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import pytest
from tests.audio.soundfiles import encoded, several_tracks, tone

if TYPE_CHECKING:
    from tests.cli.conftest import Lipwire


def lipwire_process(*arguments: object, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "lipwire", *map(str, arguments)],
        env={**os.environ, "LIPWIRE_DEBUG": ""},
        stderr=subprocess.PIPE,
        check=False,
        **streams,
    )


@pytest.fixture
def film(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    return tmp_path / "films" / "out.mp4"


@pytest.mark.slow
def test_a_recording_comes_from_a_pipe_and_a_video_goes_into_one(
    avatar_package: Path, tmp_path: Path
) -> None:
    content = encoded("mp4", "aac", tone(1.0, 16_000), 16_000)
    done = lipwire_process(
        "render", avatar_package, "-", "-o", "-", input=content, stdout=subprocess.PIPE
    )
    assert done.returncode == 0
    assert done.stdout[4:8] == b"ftyp"  # and nothing in front of it
    assert b"standard output: 1.0 s of 320x240" in done.stderr
    (path := tmp_path / "got.mp4").write_bytes(done.stdout)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert sum(1 for _ in container.decode(video=0)) == 26


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_render_without_a_word(avatar_package: Path) -> None:
    content = encoded("wav", "pcm_s16le", tone(20.0, 16_000), 16_000)
    reading, writing = os.pipe()
    os.close(reading)
    done = lipwire_process("render", avatar_package, "-", "-o", "-", input=content, stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert b"fault" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/dev/full", "/dev/null"])
def test_a_video_is_written_without_anybody_to_tell(
    avatar_package: Path, tmp_path: Path, film: Path, where: str
) -> None:
    """Standard error of a full disk, and open for reading alone; there are warnings to tell."""
    joined = encoded("wav", "pcm_s16le", tone(1, 16_000), 16_000) * 2
    (wav := tmp_path / "a.wav").write_bytes(joined)
    with Path(where).open("wb" if where == "/dev/full" else "rb") as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "lipwire", "render", avatar_package, wav, "-o", film],
            env={**os.environ, "LIPWIRE_DEBUG": ""},
            stderr=stderr,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    assert done.returncode == 0
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25


@pytest.mark.slow
@pytest.mark.parametrize("which", ["output", "input"])
def test_a_terminal_is_no_recording_and_gets_no_video(
    avatar_package: Path, tmp_path: Path, which: str
) -> None:
    (wav := tmp_path / "a.wav").write_bytes(encoded("wav", "pcm_s16le", tone(1, 16_000), 16_000))
    ours, theirs = pty.openpty()
    if which == "input":
        done = lipwire_process(
            "render", avatar_package, "-", "-o", tmp_path / "a.mp4", stdin=theirs
        )
    else:
        done = lipwire_process("render", avatar_package, wav, "-o", "-", stdout=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"error: standard {which} is a terminal")


@pytest.mark.slow
def test_a_track_can_be_chosen(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path, film: Path
) -> None:
    sounds = [tone(0.2, 48_000), tone(0.4, 48_000)]
    (path := tmp_path / "a.mkv").write_bytes(
        several_tracks(sounds, default=1, languages=("ger", "eng"))
    )
    for chosen, frames in (((), 10), (("--audio-track", 1), 5), (("--audio-track", 2), 10)):
        outcome = lipwire("render", avatar_package, path, "-fo", film, *chosen)
        assert f"{frames} frames" in outcome.out
    outcome = lipwire("render", avatar_package, path, "-fo", film, "--audio-track", 3)
    assert outcome.code == 2
    assert "has no audio track 3; there are: 1 is flac" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_a_damaged_recording_is_refused_or_rendered_with_a_warning(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path, film: Path
) -> None:
    content = bytearray(encoded("mp4", "aac", tone(0.8, 44_100), 44_100))
    middle = len(content) // 2
    content[middle : middle + 500] = b"\xff" * 500
    (path := tmp_path / "a.m4a").write_bytes(content)
    outcome = lipwire("render", avatar_package, path, "-o", film)
    assert outcome.code == 2
    assert "a.m4a is damaged " in outcome.err
    assert "--allow-damaged" in outcome.err
    assert list(film.parent.iterdir()) == []
    outcome = lipwire("render", avatar_package, path, "-o", film, "--allow-damaged")
    assert outcome.code == 0
    assert "22 frames" in outcome.out or "21 frames" in outcome.out
    (warning,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert "s of silence there" in warning


@pytest.mark.slow
def test_what_a_wav_does_not_count_is_warned_about_and_rendered(
    lipwire: Lipwire, avatar_package: Path, tmp_path: Path, film: Path
) -> None:
    wav = encoded("wav", "pcm_s16le", tone(1.0, 16_000), 16_000)
    (path := tmp_path / "a.wav").write_bytes(wav + wav)
    outcome = lipwire("render", avatar_package, path, "-o", film)
    assert outcome.code == 0
    assert outcome.err.startswith(f"warning: {path}: the header counts 32000 bytes")


@pytest.mark.slow
def test_a_video_into_a_closed_standard_output_is_refused(
    avatar_package: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("wav", "pcm_s16le", tone(0.2, 16_000), 16_000))
    command = [sys.executable, "-m", "lipwire", "render", avatar_package, tmp_path / "a.wav"]
    done = subprocess.run(
        ["sh", "-c", '"$@" -o - >&-', "sh", *map(str, command)],
        env={**os.environ, "LIPWIRE_DEBUG": ""},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == b"error: standard output is closed; allowed: a file or a pipe\n"
