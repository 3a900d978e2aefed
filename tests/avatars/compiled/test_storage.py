import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from filelock import SoftFileLease

from lipwire.avatars.compiled import storage
from lipwire.avatars.compiled.storage import (
    exclusive,
    homes,
    new_file,
    new_folder,
    storage_errors,
    writable_home,
)
from lipwire.domain import NotFound, StorageFailed
from lipwire.domain.newfiles import temporary_name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "there is no permission to write"),
        (errno.EIO, "input/output error"),
    ],
)
def test_the_reason_is_said_in_one_line(tmp_path: Path, number: int, reason: str) -> None:
    with (
        pytest.raises(StorageFailed, match=f"^cannot write .*/a; {reason}$"),
        storage_errors(tmp_path / "a"),
    ):
        raise OSError(number, "Input/output error")


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_full_disk_is_said_of_the_target(
    tmp_path: Path, new: Callable[[Path], AbstractContextManager[object]]
) -> None:
    with (
        pytest.raises(StorageFailed, match=r"^cannot write .*/a; the disk is full$"),
        new(tmp_path / "a"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_leftovers_of_the_dead_are_swept_under_the_lock(tmp_path: Path) -> None:
    temporary_name(tmp_path, ".npz").write_text("")
    folder = temporary_name(tmp_path)
    folder.mkdir()
    (folder / "x").write_text("")
    (tmp_path / "a.tmp-1-ff").write_text("")  # as named by older versions
    (tmp_path / "kept").write_text("")
    with exclusive(tmp_path, lambda: None):
        assert names(tmp_path) == ["kept", "lock"]


@pytest.mark.slow
def test_the_lock_is_waited_for(tmp_path: Path) -> None:
    waits = 0

    class GivenUpError(Exception):
        pass

    def waiting() -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            raise GivenUpError

    with (
        exclusive(tmp_path, lambda: None),
        pytest.raises(GivenUpError),
        exclusive(tmp_path, waiting),
    ):
        pass
    with exclusive(tmp_path, waiting):
        assert waits == 2


def test_home_is_in_the_package(tmp_path: Path) -> None:
    assert writable_home(tmp_path) == tmp_path / ".lipwire"
    assert (tmp_path / ".lipwire" / ".gitignore").read_text() == "*\n"


def test_a_linked_home_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / ".lipwire").symlink_to(tmp_path / "victim")
    assert writable_home(tmp_path / "anna") == homes(tmp_path / "anna")[1]
    assert names(tmp_path / "victim") == []


def test_packages_of_one_name_have_caches_of_their_own(tmp_path: Path) -> None:
    one, two = homes(tmp_path / "a" / "anna")[1], homes(tmp_path / "b" / "anna")[1]
    assert one != two
    assert one.name.startswith("anna-")
    assert one.parent == two.parent


REFUSALS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EAGAIN, errno.EIO]


@pytest.fixture(params=REFUSALS, ids=errno.errorcode.get)
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot lock, whatever it says."""

    def refuse(file: object, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


class GivenUpError(Exception):
    pass


def give_up() -> None:
    raise GivenUpError


@pytest.mark.slow
@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_lease_is_held_and_waited_for(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()  # left by a machine that can lock
    with exclusive(tmp_path, give_up):
        assert names(tmp_path) == ["lease", "lock"]
        with pytest.raises(GivenUpError), exclusive(tmp_path, give_up):
            pass
    assert names(tmp_path) == ["lock"]
    with exclusive(tmp_path, give_up):
        pass


HOLDER = """
import os, socket, sys
socket.gethostname = lambda: {host!r}
from filelock import SoftFileLease
lease = SoftFileLease({path!r}, lease_duration={lease_s})
lease.acquire(timeout=0)
os._exit(9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("no_flock", [errno.ENOLCK], indirect=True)
@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_the_lease_of_a_dead_holder_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(storage, "_LEASE_S", 0.5)
    code = HOLDER.format(host=host, path=str(tmp_path / "lease"), lease_s=0.5)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert names(tmp_path) == ["lease"]
    until_s = time.monotonic() + 60

    def waiting() -> None:
        assert time.monotonic() < until_s

    with exclusive(tmp_path, waiting):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("no_flock", [errno.ENOLCK], indirect=True)
@pytest.mark.usefixtures("no_flock")
def test_a_lease_that_is_renewed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_LEASE_S", 0.3)
    waits = 0

    def waiting() -> None:
        nonlocal waits
        waits += 1
        if waits == 6:  # four times as long as the lease
            raise GivenUpError

    with (
        SoftFileLease(tmp_path / "lease", lease_duration=0.3),
        pytest.raises(GivenUpError),
        exclusive(tmp_path, waiting),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_an_avatar_is_compiled_where_flock_is_missing(
    tmp_path: Path, avatar_package: Path, number: int
) -> None:
    compiler = shutil.which("gcc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    source = tmp_path / "noflock.cpp"
    source.write_text(
        f'#include <cerrno>\nextern "C" int flock(int, int) {{ errno = {number}; return -1; }}\n'
    )
    library = tmp_path / "noflock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "lipwire", "avatar", "compile", avatar_package, "--for", "serve"],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout[:5]) == (0, "anna:"), done.stderr
    assert "Warning" not in done.stderr
    assert any((avatar_package / ".lipwire").glob("jpeg-*"))
    assert not (avatar_package / ".lipwire" / "lease").exists()


@pytest.mark.slow
@pytest.mark.parametrize("no_flock", [errno.ENOLCK], indirect=True)
@pytest.mark.usefixtures("no_flock")
def test_a_lease_without_a_name_is_taken_over_when_nobody_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses power leaves an empty file: the name was not on the disk yet."""
    monkeypatch.setattr(storage, "_LEASE_S", 0.5)
    lease = tmp_path / "lease"
    lease.touch()
    began_s = time.monotonic()

    def waiting() -> None:
        assert time.monotonic() < began_s + 60
        if time.monotonic() < began_s + 1.5:  # somebody is at work
            lease.touch()

    with exclusive(tmp_path, waiting):
        assert time.monotonic() >= began_s + 1.5
        assert lease.stat().st_size


def folder_in_the_way(path: Path) -> None:
    path.mkdir(parents=True)


def link_in_the_way(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.parent.parent.parent / "elsewhere")


def pipe_in_the_way(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


@pytest.mark.parametrize("put", [folder_in_the_way, link_in_the_way, pipe_in_the_way])
def test_a_lock_that_came_with_a_package_is_not_used(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    package = tmp_path / "anna"
    package.mkdir()
    put(package / ".lipwire" / "lock")
    home = writable_home(package)
    assert home != package / ".lipwire"
    assert (home / "lock").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_place_of_the_compiled_form_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".lipwire").write_text("mine")
    assert writable_home(tmp_path) != tmp_path / ".lipwire"
    assert (tmp_path / ".lipwire").read_text() == "mine"


def test_no_link_is_followed_for_what_git_ignores(tmp_path: Path) -> None:
    (tmp_path / "anna" / ".lipwire").mkdir(parents=True)
    (tmp_path / "anna" / ".lipwire" / ".gitignore").symlink_to(tmp_path / "elsewhere")
    writable_home(tmp_path / "anna")
    assert not (tmp_path / "elsewhere").exists()


def test_files_that_lie_elsewhere_are_compiled_into_the_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may name folders that only another server has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "networks").mkdir()
    none = tmp_path / "none"
    home = writable_home(none, "of files", others=[none, tmp_path / "networks"])
    assert home.is_relative_to(tmp_path / "cache")
    assert not none.exists()
    with pytest.raises(NotFound, match="none is not there any more"):
        writable_home(none, "of files", others=[none, tmp_path / "nothing"])


def test_nothing_is_made_anew_of_a_package_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was erased while it was being opened."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(NotFound, match="anna is not there any more"):
        writable_home(tmp_path / "anna")
    package = tmp_path / "bert"
    package.mkdir()
    monkeypatch.setattr(Path, "is_dir", lambda _self: True)  # it goes just afterwards
    package.rmdir()
    for key in ("", "of files"):
        with pytest.raises(NotFound, match="bert is not there any more"):
            writable_home(package, key)
    monkeypatch.undo()
    assert names(tmp_path) == []
