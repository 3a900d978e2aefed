"""The trial of a specialised network: its verdict, whatever happens."""

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.support.bfloat16 import demo_inputs, demo_source, needs_bfloat16
from tests.support.waiting import until

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.engine.special import specialtrial as trial
from lipwire.engine.special.openvino import SpecialisedNetwork
from lipwire.engine.special.specialtrial import Verdict, tried, try_apart


def sha256_of(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()


def try_demo(blob: Path, lanes: int = 1) -> Verdict:
    """In this process."""
    source = demo_source()
    return tried(source, sha256_of(source), *demo_inputs(), lanes, blob)


@needs_bfloat16
@pytest.mark.slow
def test_the_demo_avatars_network_passes(tmp_path: Path) -> None:
    blob, source = tmp_path / "blob", demo_source()
    verdict = try_apart(source, sha256_of(source), *demo_inputs(), 1, blob)
    assert verdict.mean < 0.2
    assert verdict.within >= 0.999
    assert verdict.psnr_db >= 50
    assert verdict.lasting
    assert verdict.memory_bytes >= blob.stat().st_size
    crops, windows = demo_inputs()
    assert SpecialisedNetwork(blob.read_bytes(), 1).run(crops, windows, np.empty_like(crops))


@pytest.mark.slow
@needs_bfloat16
def test_mouths_that_differ_do_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_MEAN", 1e-6)
    verdict = try_demo(tmp_path / "blob")
    assert verdict.reason.startswith("its mouths differ from those in float32 by ")
    assert "allowed are" in verdict.reason


@pytest.mark.slow
@needs_bfloat16
def test_a_network_that_is_no_faster_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_FASTER", 1000.0)
    verdict = try_demo(tmp_path / "blob")
    assert verdict.reason.endswith("times as fast as in float32, wanted is 1000.0")


def test_a_network_of_a_fixed_batch_is_not_specialised(tmp_path: Path) -> None:
    source = tmp_path / "unet.onnx"
    write_tiny_unet(source, seed=0, fixed_batch=3)
    verdict = tried(source, sha256_of(source), *demo_inputs(), 1, tmp_path / "blob")
    assert verdict == Verdict("it takes 3 frames at a time, needed is 1")


def test_a_network_that_was_replaced_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    source = tmp_path / "unet.onnx"
    write_tiny_unet(source, seed=0)
    before = sha256_of(source)
    write_tiny_unet(source, seed=1)
    verdict = tried(source, before, *demo_inputs(), 1, tmp_path / "blob")
    assert verdict == Verdict(
        "its ONNX file is another one than it was compiled from", lasting=False
    )


@pytest.mark.slow
def test_a_file_that_is_no_network_is_the_reason_for_now(tmp_path: Path) -> None:
    """It may be being written."""
    (tmp_path / "unet.onnx").write_bytes(b"none")
    verdict = try_apart(tmp_path / "unet.onnx", "0" * 64, *demo_inputs(), 1, tmp_path / "blob")
    assert verdict.reason
    assert not verdict.lasting
    assert not (tmp_path / "blob").exists()


def try_one(path: Path, cancelled: threading.Event | None = None) -> Verdict:
    return try_apart(path, "0" * 64, *demo_inputs(), 1, path, cancelled)


def as_child(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "python_command", lambda *_: [sys.executable, "-c", program])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "its trial ended with status -6"),
        ("import sys; sys.exit('no room')", "its trial ended with status 1: no room"),
        ("print('none of JSON')", "its trial ended with status 0"),
        ("print('{\"unknown\": 1}')", "its trial ended with status 0"),
    ],
)
def test_a_trial_that_ends_early_is_the_reason_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    as_child(program, monkeypatch)
    verdict = try_one(tmp_path)
    assert verdict == Verdict(reason, lasting=False)


@pytest.mark.slow
def test_a_trial_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_child("import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(trial, "_LIMIT_S", 0.3)
    assert try_one(tmp_path).reason == "its trial was not over after 0 s"
    cancelled = threading.Event()
    cancelled.set()
    monkeypatch.setattr(trial, "_LIMIT_S", 600)
    verdict = try_one(tmp_path, cancelled)
    assert verdict == Verdict("its trial was cancelled", lasting=False)


def test_a_trial_that_cannot_be_started_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> subprocess.Popen[bytes]:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    verdict = try_one(tmp_path)
    assert verdict.reason == "its trial cannot be started: Cannot allocate memory"


@pytest.mark.slow
def test_a_trial_ends_with_its_parent(tmp_path: Path) -> None:
    """It is killed where nobody waits for it any more."""
    if sys.platform != "linux":
        pytest.skip("only on Linux")
    program = f"""
import pathlib, numpy as np
from lipwire.engine.special import specialtrial as trial
trial._LOOK_S = 1000
def child(*arguments):
    return [trial.sys.executable, "-c",
        "import pathlib, os, sys, time;"
        "from lipwire.engine.special import specialtrial as trial;"
        "trial.tried = lambda *_: (pathlib.Path({str(tmp_path / "pid")!r}).write_text("
        "str(os.getpid())), time.sleep(600));"
        "trial.main(pathlib.Path('a'), '0', 1, pathlib.Path('b'))"]
trial.python_command = child
frames = np.zeros((1, 320, 320, 3), np.uint8), np.zeros((1, 32, 16, 16), np.float32)
trial.try_apart(pathlib.Path("a"), "0" * 64, *frames, 1, pathlib.Path("b"))
"""
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        until(lambda: pid.exists() and pid.read_text())
        parent.kill()
    number = int(pid.read_text())
    until(lambda: not Path(f"/proc/{number}").exists() or "Z" in status_of(number))


def status_of(number: int) -> str:
    """The state of a process, "Z" where it has ended; empty where it is gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
