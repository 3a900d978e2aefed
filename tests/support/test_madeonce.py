from pathlib import Path

import pytest
from tests.support.madeonce import made_once


def test_it_is_made_once_and_again_after_a_failure(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").touch(exist_ok=False)
        if len(made) == 1:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        made_once(tmp_path_factory, tmp_path.name, make)
    folders = {made_once(tmp_path_factory, tmp_path.name, make) for _ in range(3)}
    assert folders == {made[1]}
    assert len(made) == 2
    assert (made[1] / "file").exists()
