"""The files round the code agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")


def pinned(name: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return [
        Requirement(line.partition(" --hash=")[0])
        for line in lines
        if line and not line.startswith("#")
    ]


def wanted(group: str) -> list[Requirement]:
    """Requirements of a dependency group of pyproject.toml, with the groups it includes."""
    found: list[Requirement] = []
    for entry in PYPROJECT["dependency-groups"][group]:
        if isinstance(entry, dict):
            found += wanted(entry["include-group"])
        else:
            found.append(Requirement(entry))
    return found


def applies(requirement: Requirement, python: str) -> bool:
    environment = {str(key): str(value) for key, value in default_environment().items()}
    environment |= {"python_version": python.rpartition(".")[0], "python_full_version": python}
    return requirement.marker is None or requirement.marker.evaluate(environment)


RUN = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PYPROJECT["project"]["optional-dependencies"].items()
}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("file", "needs"),
    [
        ("run.txt", RUN + wanted("build")),
        ("dev.txt", RUN + wanted("dev")),
        ("speech.txt", EXTRAS["speech"]),
        ("train.txt", EXTRAS["train"]),
        ("studio.txt", wanted("studio")),
    ],
    ids=["run", "dev", "speech", "train", "studio"],
)
def test_pinned_versions_satisfy_pyproject(
    file: str, needs: list[Requirement], python: str
) -> None:
    pins = {pin.name.lower(): pin for pin in pinned(file) if applies(pin, python)}
    for need in needs:
        if not applies(need, python):
            continue
        assert need.name.lower() in pins, f"{need.name} is not in {file}: make lock"
        version = str(pins[need.name.lower()].specifier).removeprefix("==")
        assert need.specifier.contains(version), f"{file} pins {version}, wanted is {need}"


@pytest.mark.parametrize("file", ["run.txt", "dev.txt", "speech.txt", "train.txt", "studio.txt"])
def test_every_pin_is_exact_and_names_no_index(file: str) -> None:
    for line in (ROOT / "requirements" / file).read_text().splitlines():
        assert not line.startswith("-"), f"an option in {file}: {line}"
    for pin in pinned(file):
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)), f"not exact in {file}: {pin}"
        assert pin.url is None


def test_the_voice_is_pinned_by_its_hash() -> None:
    lines = (ROOT / "requirements" / "speech.txt").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or re.search(r" --hash=sha256:[0-9a-f]{64}$", line)


def test_running_and_developing_use_the_same_versions() -> None:
    for python in PYTHONS:
        dev = {pin.name: pin.specifier for pin in pinned("dev.txt") if applies(pin, python)}
        for pin in pinned("run.txt"):
            assert not applies(pin, python) or dev[pin.name] == pin.specifier


def test_every_package_is_in_the_layers_contract() -> None:
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = {name.strip() for line in layers for name in line.split("|")}
    source = ROOT / "src" / "lipwire"
    present = {
        f"lipwire.{path.stem}"
        for path in source.iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or path.suffix == ".py"
    } - {"lipwire.__init__", "lipwire.__main__"}
    assert present <= listed


def test_make_help_names_every_target_people_call() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    documented = set(re.findall(r"^([a-z][a-z-]*):.*## ", makefile, re.MULTILINE))
    assert phony == documented
