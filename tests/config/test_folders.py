import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lipwire.config import folders
from lipwire.config.folders import cache_folders, data_folder, use_cache_folders
from lipwire.domain import StorageFailed


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a home, and temporary files in ``tmp``."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    folders._say_where.cache_clear()
    return tmp_path


def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "missing":
        monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    elif kind == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    else:  # no HOME, and the user id is not in the database

        def nobody(_uid: int) -> None:
            raise KeyError

        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", nobody)


def test_the_users_own_cache_is_used(user: Path) -> None:
    assert cache_folders() == (user / "home" / ".cache" / "lipwire",)
    assert data_folder() == user / "home" / ".local" / "share" / "lipwire"
    assert list((user / "home").iterdir()) == list((user / "tmp").iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file", "unknown"])
def test_without_a_home_caches_are_among_the_temporary_files(
    user: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    no_home(user, monkeypatch, kind)
    expected = user / "tmp" / f"lipwire-{os.getuid()}"
    assert cache_folders() == cache_folders() == (expected,)
    assert expected.stat().st_mode & 0o777 == 0o700
    (record,) = caplog.records
    assert record.getMessage() == (
        f"there is no home folder to write to; caches are kept in {expected}"
    )
    assert (data_folder() is None) == (kind == "unknown")


def test_a_home_that_cannot_be_written_to_is_read(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != user / "home")
    first, last = cache_folders()
    assert first == user / "home" / ".cache" / "lipwire"
    assert last == user / "tmp" / f"lipwire-{os.getuid()}"
    (user / "home" / ".cache").mkdir()  # which can be written to
    assert cache_folders() == (first,)


def test_a_folder_that_was_chosen_is_used_whatever_it_is(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert cache_folders() == (Path("/proc/nowhere/lipwire"),)


@pytest.mark.parametrize("trap", ["link", "open to all", "file"])
def test_a_trap_among_the_temporary_files_is_not_used(
    user: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    no_home(user, monkeypatch, "unknown")
    folder = user / "tmp" / f"lipwire-{os.getuid()}"
    if trap == "link":
        folder.symlink_to(user / "home")
    elif trap == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(StorageFailed, match=r"set XDG_CACHE_HOME"):
        cache_folders()


SOMEBODY = """
import os, sys
from lipwire.config.folders import cache_folders
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
print(*cache_folders())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
@pytest.mark.parametrize("home", ["closed", "closed/inside"])
def test_the_home_of_somebody_else_is_not_used(home: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "closed" / "inside").mkdir(parents=True)
        (base / "closed").chmod(0o700)
        (base / "tmp").mkdir()
        (base / "tmp").chmod(0o1777)
        done = subprocess.run(
            [sys.executable, "-c", SOMEBODY],
            env={"PATH": os.defpath, "HOME": str(base / home), "TMPDIR": str(base / "tmp")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[-1] == f"{base}/tmp/lipwire-54321"
        assert (base / "tmp" / "lipwire-54321").stat().st_uid == 54321


def test_a_process_uses_those_that_it_was_given(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_given", None)
    use_cache_folders((user / "one", user / "two"))
    assert cache_folders() == (user / "one", user / "two")
    assert list((user / "tmp").iterdir()) == []
