"""Warnings of recordings on the terminal."""

import pytest

from lipwire.audio.recordings.findings import MAX_WARNINGS, Findings
from lipwire.cli.recordings import warn


def test_a_count_of_warnings_that_has_grown_is_told_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = Findings("a.mka")
    for place in range(MAX_WARNINGS + 1):
        findings.note(f"silent at {place}")
    before = findings.warnings
    findings.note("silent again")
    warn(findings.warnings, told=before)
    assert capsys.readouterr().err == "warning: a.mka: 2 more of the same kinds\n"
