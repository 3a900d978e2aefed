import os
import stat
import tempfile
from pathlib import Path

import pytest

from lipwire.domain import InvalidInput
from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.rpc.workers.place import address_of


def test_a_place_is_read_back_from_its_socket() -> None:
    place = WorkerPlace(Path("/run/x"), 2, 4)
    assert WorkerPlace.of_socket(place.socket(), 4) == place
    assert place.others == (0, 1, 3)
    assert [place.socket(index).name for index in place.others] == ["0.sock", "1.sock", "3.sock"]


def test_the_id_of_a_session_names_its_process() -> None:
    place = WorkerPlace(Path("/run/x"), 2, 4)
    assert place.owner_of(f"{place.session_prefix}abc") == 2
    assert place.owner_of("0.x.y") == 0
    assert place.web_socket() == Path("/run/x/2.web")
    assert place.web_socket(3) == Path("/run/x/3.web")


@pytest.mark.parametrize(
    "session_id", ["", "2", "4.x", "-1.x", "02.x", "².x", "x.2", ".x", f"{'1' * 5000}.x"]
)
def test_an_id_that_names_no_process_is_nobodys(session_id: str) -> None:
    assert WorkerPlace(Path("/run/x"), 2, 4).owner_of(session_id) is None


@pytest.mark.parametrize("name", ["4.sock", "-1.sock", "one.sock", "1", "1.txt", "².sock"])
def test_what_is_no_workers_socket_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"allowed are 0\.sock to 3\.sock"):
        WorkerPlace.of_socket(Path("/run/x") / name, 4)


def test_the_folder_of_sockets_is_the_users_alone_and_goes(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path)[:60])
        Path(tempfile.gettempdir()).mkdir(exist_ok=True)
        with socket_folder() as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (folder / "0.sock").touch()
    assert not folder.exists()


def test_a_folder_whose_name_is_too_long_for_sockets_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with socket_folder() as folder:
        assert len(os.fsencode(WorkerPlace(folder, 0, 256).socket(255))) <= 103


def test_grpc_is_told_paths_as_they_are() -> None:
    assert address_of(Path("/a b/50%/1.sock")) == "unix:/a%20b/50%25/1.sock"
