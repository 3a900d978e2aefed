"""Checkpoints on disk."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from lipwire.domain import InvalidInput, StorageFailed  # noqa: E402
from lipwire.training.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {"step": 3, "weights": {"a": torch.arange(4.0)}}

    save_checkpoint(tmp_path / "run" / "last.pt", state)
    loaded = load_checkpoint(tmp_path / "run" / "last.pt")

    assert loaded["step"] == 3
    assert torch.equal(loaded["weights"]["a"], torch.arange(4.0))


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    def fill(_state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(StorageFailed, match="No space"):
        save_checkpoint(path, {"step": 2})
    monkeypatch.undo()

    assert load_checkpoint(path)["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_damaged_or_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a file"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InvalidInput, match="damaged"):
        load_checkpoint(tmp_path / "bad.pt")


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Path("x")}, tmp_path / "code.pt")

    with pytest.raises(InvalidInput, match="holds more than weights"):
        load_checkpoint(tmp_path / "code.pt")
