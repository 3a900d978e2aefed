"""From a job to a file, where that fails."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lipwire.domain import Call, StorageFailed
from lipwire.renders import rendering
from lipwire.renders.files import RenderFiles
from lipwire.renders.rendering import Rendering


def test_nothing_is_left_of_a_video_whose_pieces_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_source: Path, target: Path) -> str:
        target.write_bytes(b"the first piece")
        raise StorageFailed("the disk is full")

    def write(_self: Rendering, _job: Any, _recording: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"a video")

    recording = nullcontext(SimpleNamespace(samples=16_000))
    monkeypatch.setattr(Rendering, "_recording", lambda *_: recording)
    monkeypatch.setattr(Rendering, "_write", write)
    monkeypatch.setattr(rendering, "write_playlist", cut)
    none, job = cast("Any", None), SimpleNamespace(order=SimpleNamespace(format="hls"))
    with RenderFiles(tmp_path) as files:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(StorageFailed, match="the disk is full"):
            Rendering(files, none, none, voice=None).make(
                cast("Any", job), Call(None), lambda *_: None, 60.0
            )
        assert sorted(tmp_path.rglob("*")) == before
