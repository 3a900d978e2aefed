"""Requests: HTTP, WebSocket, SDP, tokens, raw audio."""

from pathlib import Path

import pytest
from tests.fuzz.properties import check_only_clear_errors
from tests.fuzz.requesttargets import request_targets
from tests.fuzz.target import Target


@pytest.mark.slow
@pytest.mark.parametrize("target", request_targets(), ids=lambda target: target.name)
def test_damaged_input_is_read_or_refused_in_clear_words(target: Target, tmp_path: Path) -> None:
    check_only_clear_errors(target, tmp_path)
