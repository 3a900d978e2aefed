import io
from pathlib import Path

import av
import numpy as np
import pytest

from lipwire.cli.commands.client import _save
from lipwire.compose.livevideo import BatchVideoEncoder
from lipwire.domain import StorageFailed
from lipwire.rpc.connection import Composited

ANSWER = Composited((b"one", b"two"), "jpeg", 0, 0, 0, 0, 0)


def test_frames_are_saved_where_a_link_leads(tmp_path: Path) -> None:
    link = tmp_path / "frames"
    link.symlink_to(tmp_path / "disk" / "frames")
    _save(link, 0, ANSWER)
    _save(link, 2, ANSWER)
    assert link.is_symlink()
    assert sorted(entry.name for entry in (tmp_path / "disk" / "frames").iterdir()) == [
        f"frame_00000{number}.jpg" for number in range(4)
    ]


def test_a_link_that_leads_round_in_a_circle_is_one_line(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(StorageFailed, match=f"^cannot write to {loop}: Too many levels"):
        _save(loop, 0, ANSWER)


def test_access_units_one_after_the_other_are_a_video(tmp_path: Path) -> None:
    encoder = BatchVideoEncoder(64, 48, 23)
    planes = np.full((72, 64), 90, np.uint8)
    units = tuple(encoder.encode(planes) for _ in range(3))
    _save(tmp_path, 4, Composited(units, "h264", 0, 0, 0, 0, 0))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"frame_00000{number}.h264" for number in (4, 5, 6)]
    video = io.BytesIO(b"".join(file.read_bytes() for file in files))
    with av.open(video, "r", format="h264") as container:
        assert len(list(container.decode(video=0))) == 3
