"""The images' Dockerfiles, as hadolint reads them; nothing is built here."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipwire.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "deploy" / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda")]

every_file = pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])


@every_file
def test_hadolint_finds_nothing_wrong(file: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed")
    said = subprocess.run(
        [program, "--no-color", file], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (0, "")


def stages(file: Path) -> list[list[str]]:
    """The instructions of each stage, lines that go on joined."""
    text = re.sub(r"\\\n", " ", file.read_text())
    lines = [line.strip() for line in text.splitlines() if line and not line.startswith("#")]
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(line)
    return found


def kept(path: str) -> bool:
    """Whether .dockerignore lets ``path`` through."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(path, pattern):
            ignored = not line.startswith("!")
    return not ignored


@every_file
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    copied = [
        source
        for line in stages(file)[0]
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    ]
    assert "src" in copied
    for source in copied:
        assert (ROOT / source).exists()
        assert kept(source.split("/")[0])
    assert not kept("tests")
    assert not kept(".git")


@every_file
def test_the_last_stage_has_no_tools_to_build_with_and_is_not_root(file: Path) -> None:
    last = stages(file)[-1]
    text = "\n".join(last)
    assert not re.search(r"\b(apt-get|pip|gcc|make|git|curl)\b", text)
    assert any(re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", line) for line in last)
    assert last.index(next(line for line in last if line.startswith("USER"))) < last.index(
        next(line for line in last if line.startswith("ENTRYPOINT"))
    )
    assert stages(file)[0][0] == "FROM ${BASE} AS wheel"
    assert last[0] == "FROM ${BASE}"


@every_file
def test_the_health_check_is_a_command_of_lipwire(file: Path) -> None:
    (line,) = (line for line in stages(file)[-1] if line.startswith("HEALTHCHECK"))
    assert line.endswith('CMD ["sh", "-c", "exec lipwire health $HEALTH"]')
    (address,) = re.findall(r'HEALTH="(.*?)"', "\n".join(stages(file)[-1]))
    # Nobody listens there, or somebody does: what it does not say is that it cannot be asked so.
    assert CliRunner().invoke(app, ["health", address, "--help"]).exit_code == 0
    assert re.fullmatch(r"localhost:5005[12]", address)


@pytest.mark.parametrize(
    ("name", "server"),
    [("Dockerfile", "serve"), ("Dockerfile.cuda", "inference-server")],
)
def test_the_image_starts_the_guides_server(name: str, server: str) -> None:
    last = stages(ROOT / "deploy" / "docker" / name)[-1]
    assert f'CMD ["{server}"]' in last
    (exposed,) = (line.split()[1:] for line in last if line.startswith("EXPOSE "))
    assert {"50051", "50052"} <= set(exposed)
    assert CliRunner().invoke(app, [server, "--help"]).exit_code == 0
