from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lipwire.cli.doctor.checks import Outcome
from lipwire.cli.doctor.storage import avatars, cache, written_files
from lipwire.config import CompositingConfig, InferenceConfig, ModelEntry
from lipwire.config.securitysettings import JwtSettings, LimitSettings, SecuritySettings
from lipwire.config.settings import LoggingSettings
from lipwire.security import KeyFile

as_root = pytest.mark.skipif(
    os.name != "posix" or os.getuid() == 0, reason="root may read everything"
)


@pytest.fixture
def root(package_template: Path, tmp_path: Path) -> Path:
    """A folder of two avatars."""
    for name in ("anna", "ben"):
        shutil.copytree(package_template, tmp_path / "models" / name)
    return tmp_path / "models"


def test_avatars_and_their_frames_are_counted(root: Path) -> None:
    found = avatars(CompositingConfig(models_root=root))
    (check,) = found.checks
    assert (check.outcome, check.seen) == (Outcome.OK, "2 of 2 can be read, 16 frames")
    assert (found.readable, found.preloaded_bytes) == (2, 0)


def test_what_is_preloaded_is_measured(root: Path) -> None:
    entry = ModelEntry(path=root / "anna", preload_backgrounds=True, num_frames=8)
    found = avatars(CompositingConfig(models_root=root, models={"anna": entry}))
    frames = (root / "anna" / "frames").iterdir()
    assert found.preloaded_bytes == sum(path.stat().st_size for path in frames)


def test_progress_is_told_of_each(root: Path) -> None:
    (root / "ben" / "crop_rects.json").write_text("[]")
    told: list[tuple[int, int]] = []
    avatars(CompositingConfig(models_root=root), lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def remove_rectangles(root: Path) -> None:
    (root / "ben" / "crop_rects.json").unlink()


def remove_frames(root: Path) -> None:
    shutil.rmtree(root / "ben" / "frames")


@pytest.mark.parametrize("spoil", [remove_rectangles, remove_frames])
def test_a_broken_package_is_named(root: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(root)
    found = avatars(CompositingConfig(models_root=root))
    assert [(check.name, check.outcome) for check in found.checks] == [
        ("avatars", Outcome.FAULT),
        ("avatar ben", Outcome.FAULT),
    ]
    assert found.checks[0].seen.startswith("1 of 2 can be read")


def test_another_number_of_frames_than_is_said_is_a_fault(root: Path) -> None:
    entry = ModelEntry(path=root / "ben", num_frames=523)
    found = avatars(CompositingConfig(models_root=root, models={"ben": entry}))
    assert found.checks[-1].seen == "8 frames; num_frames is 523"


def test_each_server_needs_its_half_of_a_package(root: Path) -> None:
    (root / "ben" / "checkpoint" / "model_best.onnx").unlink()
    (check,) = avatars(CompositingConfig(models_root=root)).checks
    assert (check.outcome, check.seen.endswith("without a network: ben")) == (Outcome.OK, True)
    assert avatars(InferenceConfig(models_root=root)).checks[0].outcome is Outcome.FAULT


def test_a_folder_of_avatars_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (check,) = avatars(CompositingConfig(models_root=tmp_path / "gone")).checks
    assert (check.outcome, check.seen) == (
        Outcome.FAULT,
        f"there is nothing at {tmp_path / 'gone'}",
    )


def test_an_empty_folder_of_avatars_is_a_warning(tmp_path: Path) -> None:
    (check,) = avatars(CompositingConfig(models_root=tmp_path)).checks
    assert check.outcome is Outcome.WARNING


@as_root
def test_a_folder_of_avatars_that_cannot_be_read_is_a_fault(root: Path) -> None:
    root.chmod(0)
    try:
        (check,) = avatars(CompositingConfig(models_root=root)).checks
    finally:
        root.chmod(0o700)
    assert check.seen == f"{root} cannot be read"


@pytest.mark.parametrize(
    ("free_gb", "outcome"), [(100, Outcome.OK), (1.9, Outcome.WARNING), (0, Outcome.WARNING)]
)
def test_the_cache_needs_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: float, outcome: Outcome
) -> None:
    usage = SimpleNamespace(free=int(free_gb * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    folder = tmp_path / "not" / "yet"
    assert cache(folder).outcome is outcome
    assert not folder.exists()


def test_a_cache_that_is_a_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cache(tmp_path / "file" / "lipwire").outcome is Outcome.FAULT


def test_files_of_keys_and_records_are_looked_at(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    KeyFile(keys).create("phone")
    limits = LimitSettings(live_minutes_per_month=5, minutes_file=tmp_path / "minutes")
    rules = JwtSettings(issuer="us", audience="lipwire", key_file=tmp_path / "gone.pem")
    security = SecuritySettings(
        jwt=rules,
        keys_file=keys,
        audit_file=tmp_path / "gone" / "audit.jsonl",
        usage_file=tmp_path,
        limits=limits,
    )
    logs = LoggingSettings(file=tmp_path / "gone" / "lipwire.log")
    found = written_files(CompositingConfig(security=security, logging=logs))
    assert {check.name: check.outcome for check in found} == {
        "logging.file": Outcome.FAULT,
        "security.audit_file": Outcome.FAULT,
        "security.usage_file": Outcome.FAULT,
        "security.limits.minutes_file": Outcome.OK,
        "security.keys_file": Outcome.OK,
        "security.jwt.key_file": Outcome.FAULT,
    }
    assert not (tmp_path / "minutes").exists()


@pytest.mark.parametrize(
    ("free_gb", "outcome"), [(100, Outcome.OK), (0.1, Outcome.WARNING), (0, Outcome.FAULT)]
)
def test_files_that_grow_need_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: float, outcome: Outcome
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(free_gb * 1e9)))
    logs = LoggingSettings(file=tmp_path / "lipwire.log")
    (check,) = written_files(CompositingConfig(logging=logs))
    assert check.outcome is outcome
    assert str(tmp_path / "lipwire.log") in check.seen


def test_a_damaged_file_of_keys_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    security = SecuritySettings(keys_file=tmp_path / "keys.json")
    (check,) = written_files(CompositingConfig(security=security))
    assert check.outcome is Outcome.FAULT


def test_without_files_there_is_nothing_to_look_at() -> None:
    (check,) = written_files(CompositingConfig())
    assert check.outcome is Outcome.NOT_APPLICABLE


def test_where_nobody_may_look_is_a_fault(tmp_path: Path) -> None:
    unseen = tmp_path / ("x" * 300)  # as where a folder on the way may not be searched
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        unseen.exists()
    config = CompositingConfig(
        models_root=unseen,
        security=SecuritySettings(audit_file=unseen / "a", keys_file=unseen / "k"),
    )
    assert [each.outcome for each in avatars(config).checks] == [Outcome.FAULT]
    assert {each.outcome for each in written_files(config)} == {Outcome.FAULT}
