"""``lipwire render-many``."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.rendermany.conftest import write_recording
from tests.support.waiting import WAIT_S, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Lipwire


@pytest.fixture
def table(tmp_path: Path, avatar_package: Path) -> Path:
    """Six videos of an avatar."""
    write_recording(tmp_path / "a.wav")
    (tmp_path / "out").mkdir()
    lines = [f"{avatar_package},a.wav,out/{n}.mp4,{n}" for n in range(6)]
    path = tmp_path / "jobs.csv"
    path.write_text("\n".join(("avatar,audio,out,start_frame", *lines)))
    return path


@pytest.mark.slow
def test_videos_are_made_and_not_again(lipwire: Lipwire, table: Path) -> None:
    made = lipwire("render-many", table, "--preset", "ultrafast")
    assert (made.code, made.out) == (0, "6 videos rendered, 0.7 s in all; 0 failed\n")
    assert len(list((table.parent / "out").iterdir())) == 6
    again = lipwire("render-many", table, "--preset", "ultrafast", "--workers", 1)
    assert again.out == "0 videos rendered, 0.0 s in all, 6 were finished before; 0 failed\n"


@pytest.mark.slow
def test_one_that_fails_is_told_and_the_others_are_made(lipwire: Lipwire, table: Path) -> None:
    (table.parent / "b.wav").write_bytes(b"no sound at all")
    table.write_text(table.read_text() + "\ndemo,b.wav,out/7.mp4,0")
    made = lipwire("render-many", table, "--preset", "ultrafast")
    assert made.code == 1
    assert made.out.endswith("; 1 failed\n")
    assert made.out.startswith("6 videos rendered")
    assert "failed: line 8, " in made.err
    assert "b.wav" in made.err


def test_a_table_that_is_none(lipwire: Lipwire, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("avatar,audio,out\ndemo,a.wav,1.mp4\n")
    said = lipwire("render-many", tmp_path / "jobs.csv")
    assert said.code == 2
    assert "line 2: there is no recording" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]


@pytest.mark.slow
def test_ctrl_c_ends_it_and_what_is_finished_stays(
    lipwire: Lipwire, table: Path, avatar_package: Path
) -> None:
    lines = [f"{avatar_package},a.wav,out/{n}.mp4,{n}" for n in range(2000)]
    table.write_text("\n".join(("avatar,audio,out,start_frame", *lines)))
    command = [sys.executable, "-m", "lipwire", "render-many", str(table), "--workers", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        until(lambda: len(list((table.parent / "out").glob("?.mp4"))) >= 3)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted"
    left = list((table.parent / "out").iterdir())
    known = (table.parent / "jobs.csv.done").read_text().splitlines()
    assert len(left) - 1 <= len(known) <= len(left)
    assert all(path.suffix == ".mp4" for path in left)
