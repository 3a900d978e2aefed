"""Trials in a process of their own: what it says, how it ends, and what is remembered."""

import ctypes
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.compilednetworks import gpu_folder

from lipwire.engine import Device
from lipwire.engine.gpu.kernels.verify import trialprocess
from lipwire.engine.gpu.kernels.verify.trialprocess import Trials, tried
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory
from lipwire.engine.runtime import DRIVER

GPU = Device.cuda(0)


class Played(Trials):
    """The child is a line of Python."""

    def __init__(self, folder: Path, text: str, limit_s: float = 60.0) -> None:
        super().__init__(folder, limit_s=limit_s)
        self.text = text
        self.children = 0

    def _command(self, device: Device, compiled: Path) -> list[str]:
        self.children += 1
        return [sys.executable, "-c", self.text]


def says(reason: str | None, *, full: bool = False) -> str:
    answer = json.dumps({"reason": reason, "full": full})
    return f"print('a word before'); print({json.dumps(answer)})"


def test_what_passed_is_not_tried_again(tmp_path: Path) -> None:
    trials = Played(tmp_path / "kept", says(None))
    for _ in range(3):
        assert trials.why_not(GPU, tmp_path, ("h200", "text")) is None
    assert trials.children == 1
    other = Played(tmp_path / "kept", says("no"))
    assert other.why_not(GPU, tmp_path, ("h200", "text")) is None
    assert other.why_not(GPU, tmp_path, ("h200", "another text")) == "no"
    assert other.why_not(GPU, tmp_path, ("h200t", "ext")) == "no"
    assert other.children == 2


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    trials = Played(tmp_path / "kept", says("a pixel differs by 9 of 255"))
    for _ in range(2):
        assert trials.why_not(GPU, tmp_path, ("x",)) == "a pixel differs by 9 of 255"
    assert trials.children == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os; os.abort()", "their trial ended with status -6"),
        ("import sys; sys.exit('CUDA is gone')", "their trial ended with status 1: CUDA is gone"),
        ("print('[1]')", "their trial ended with status 0"),
        ("print('no json')", "their trial ended with status 0"),
        ("print('{}')", "their trial ended with status 0"),
        ("import os; os.write(1, bytes(range(128, 256)))", "their trial ended with status 0"),
    ],
)
def test_a_child_that_dies_or_says_nothing_has_not_passed(
    tmp_path: Path, text: str, reason: str
) -> None:
    assert Played(tmp_path / "kept", text).why_not(GPU, tmp_path, ("x",)) == reason
    assert not (tmp_path / "kept").exists()


def test_a_full_device_is_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Played(tmp_path, says("cuMemAlloc_v2: out of memory", full=True))
    with pytest.raises(DeviceOutOfMemory, match="cuMemAlloc_v2"):
        trials.why_not(GPU, tmp_path, ("x",))

    def run_out(*_: Any) -> None:
        raise DeviceOutOfMemory("no room")

    monkeypatch.setattr(trialprocess, "tried", run_out)
    trialprocess.main(tmp_path, GPU)
    assert json.loads(capsys.readouterr().out) == {"reason": "no room", "full": True}


@pytest.mark.slow
def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    trials = Played(tmp_path, "import time; time.sleep(3600)", limit_s=0.5)
    assert trials.why_not(GPU, tmp_path, ("x",)) == "their trial was not over after 0 s"


def test_a_child_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    reason = Trials(tmp_path).why_not(GPU, tmp_path, ("x",))
    assert reason == "their trial cannot be started: No such file or directory"


def test_a_folder_that_takes_nothing_costs_another_trial(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trials = Played(tmp_path / "file" / "kept", says(None))
    for _ in range(2):
        assert trials.why_not(GPU, tmp_path, ("x",)) is None
    assert trials.children == 2


@pytest.mark.slow
def test_the_real_child_says_what_is_missing(guides: Any, tmp_path: Path) -> None:
    with suppress(OSError):
        ctypes.CDLL(DRIVER)
        pytest.skip("there is a driver here")
    reason = Trials(tmp_path / "kept").why_not(GPU, gpu_folder(guides.folders[0]), ("x",))
    assert reason == "cuda:0 cannot be used: no NVIDIA driver here"
    assert reason == tried(gpu_folder(guides.folders[0]), GPU)


@pytest.mark.slow
def test_a_damaged_network_is_a_reason_like_another(tmp_path: Path) -> None:
    reason = Trials(tmp_path / "kept").why_not(GPU, tmp_path, ("x",))
    assert reason is not None
    assert "nothing compiled for GPUs" in reason
