import sys

import pytest

from lipwire.cli.terminal import compile_progress, duration, file_size, progress_bar


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1400, "1.4 kB"), (2_500_000, "2.5 MB"), (7e9, "7.00 GB")],
)
def test_sizes_are_for_people(size_bytes: float, text: str) -> None:
    assert file_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1:01"), (3729, "1:02:09")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Terminal:
    """stderr as if it were one."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_speed_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress_bar("rendering", "frames") as report:
        for done in range(1, 6):
            report(done, 5)
    assert "rendering" in screen.text
    assert "5/5 frames" in screen.text
    assert " fps" in screen.text
    assert screen.text.endswith("\x1b[2K")  # the line is cleared


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("lipwire.cli.terminal.time.monotonic", lambda: now_s)
    with progress_bar("rendering", "frames") as report:
        for done in range(1, 13):
            now_s += 1.0
            report(done, 12)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "rendering 5/12 frames 1.0 fps\nrendering 10/12 frames 1.0 fps\n"


def test_a_line_before_there_is_a_speed_has_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("lipwire.cli.terminal.time.monotonic", lambda: now_s)
    with progress_bar("compiling", "frames") as report:
        now_s = 6.0
        report(0, 8)
    assert capsys.readouterr().err == "compiling 0/8 frames\n"


def test_steps_without_a_count_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    with compile_progress() as tell:
        tell(0, 1, "optimising the network")
        tell(1, 1, "optimising the network")
        tell(0, 8, "compiling frames")
    assert capsys.readouterr().err == "optimising the network ...\n"
