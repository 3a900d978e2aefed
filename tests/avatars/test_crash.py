"""What real processes leave on real disks when they are killed, race, or run out of room."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipwire.avatars import Avatar, compile_avatar, read_package
from lipwire.domain import StorageFailed
from lipwire.domain.callbacks import WAITING


# Prints every step. Where it is told to stop at a step, it says so and waits for a line, or for its
# end.
@pytest.fixture
def avatar_package(package_template: Path, tmp_path: Path) -> Path:
    """As everywhere, and not compiled yet."""
    return shutil.copytree(package_template, tmp_path / "anna")


COMPILER = """
import json, sys
from pathlib import Path
from lipwire.avatars import Avatar

package, stop = sys.argv[1], json.loads(sys.argv[2])

def step(done, total, what):
    print(json.dumps([done, total, what]), flush=True)
    if [done, what] == stop:
        sys.stdin.readline()

Avatar.open(package, parts=frozenset({"jpeg", "planes"}), progress=step).close()
print("opened", flush=True)
"""


def compiler(package: Path, stop: object = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMPILER, str(package), json.dumps(stop)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], line: object) -> None:
    assert process.stdout is not None
    for text in process.stdout:
        if json.loads(text) == line:
            return
    pytest.fail(f"never said {line}")


def check_opens(package: Path) -> None:
    with Avatar.open(package, parts=frozenset({"jpeg", "planes"})) as avatar:
        pixels = cv2.imread(str(package / "frames" / "frame_0005.png"))
        decoded = cv2.imdecode(np.frombuffer(avatar.jpeg(5, None), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert decoded is not None
        assert np.abs(decoded.astype(int) - pixels).mean() < 10
    assert not list(package.rglob("*.tmp-*"))


def kept(package: Path) -> list[str]:
    home = package / ".lipwire"
    return sorted(path.name.split("-")[0] for path in home.iterdir() if "-" in path.name)


@pytest.mark.slow
def test_killed_half_way_it_is_as_if_it_had_never_begun(avatar_package: Path) -> None:
    process = compiler(avatar_package, [5, "compiling frames"])
    with process:
        read_until(process, [5, 8, "compiling frames"])
        assert list(avatar_package.rglob("*.tmp-*")), "nothing was being written"
        process.send_signal(signal.SIGKILL)
    assert set(kept(avatar_package)) <= {"model", ".lipwire.tmp"}
    assert len(list(avatar_package.rglob("*.tmp-*"))) == 2  # "jpeg" and "patches", half written
    check_opens(avatar_package)


@pytest.mark.slow
def test_interrupted_it_cleans_up_by_itself(avatar_package: Path) -> None:
    process = compiler(avatar_package, [5, "compiling frames"])
    with process:
        read_until(process, [5, 8, "compiling frames"])
        process.send_signal(signal.SIGINT)
    assert process.returncode != 0
    assert kept(avatar_package) == ["model"]
    check_opens(avatar_package)


@pytest.mark.slow
def test_two_at_once_compile_once(avatar_package: Path) -> None:
    with compiler(avatar_package, [5, "compiling frames"]) as one:
        read_until(one, [5, 8, "compiling frames"])
        with compiler(avatar_package) as two:
            read_until(two, [0, 0, WAITING])
            assert one.stdin is not None
            one.stdin.write("go on\n")
            one.stdin.flush()
            outputs = [process.stdout.read() for process in (one, two) if process.stdout]
    assert [process.returncode for process in (one, two)] == [0, 0], outputs
    assert all(output.endswith("opened\n") for output in outputs)
    assert ["compiling frames" in output for output in outputs] == [True, False]
    assert kept(avatar_package) == ["jpeg", "model", "patches"]
    check_opens(avatar_package)


@contextmanager
def mounted(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of that size at ``folder``; skips the test where it may not be mounted."""
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a file system needs root")
    command = [mount, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def size_bytes(package: Path) -> int:
    return sum(path.stat().st_size for path in package.rglob("*") if path.is_file())


def test_a_full_disk(avatar_package: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    room = 600_000  # for the network; the frames need a megabyte
    with mounted(disk, size_bytes(avatar_package) + 200_000 + room):
        package = shutil.copytree(avatar_package, disk / "anna")
        (package / "filling").write_bytes(bytes(200_000))
        with pytest.raises(StorageFailed, match=r"(?i)disk is full|no space left") as caught:
            compile_avatar(read_package(package), parts=frozenset({"jpeg"}))
        assert "\n" not in str(caught.value)
        assert not list(package.rglob("*.tmp-*"))
        assert "jpeg" not in kept(package)
        assert caught.value.retryable


def test_a_read_only_disk(avatar_package: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, 10_000_000):
        package = shutil.copytree(avatar_package, disk / "anna")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Avatar.open(package) as avatar:
            assert avatar.model_path.is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_a_file_size_limit(avatar_package: Path) -> None:
    compile_avatar(read_package(avatar_package))
    before = kept(avatar_package)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageFailed, match="the file would be larger than allowed here"):
            compile_avatar(read_package(avatar_package), parts=frozenset({"jpeg"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept(avatar_package) == before
