"""`lipwire keys`, as whoever types it sees it."""

import json
from pathlib import Path

import pytest

from lipwire.cli.app import app
from lipwire.domain import Access, InvalidInput, LipwireError, NotFound
from lipwire.security import KeyFile


def run(arguments: list[str]) -> None:
    app(arguments, standalone_mode=False)


def test_a_key_is_made_shown_once_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--file", str(tmp_path / "keys.json")]
    limits = ["--tenant", "acme", "--may", "live, read", "--avatars", "acme-*,demo", "--days", "30"]
    run(["keys", "create", "phone", *file, *limits])
    key = capsys.readouterr().out.strip()
    access = KeyFile(tmp_path / "keys.json").access(key)
    assert access == Access("key phone", "acme", frozenset({"live", "read"}), ("acme-*", "demo"))
    run(["keys", "create", "admin", *file])
    assert KeyFile(tmp_path / "keys.json").access(capsys.readouterr().out.strip()).sees_all

    run(["keys", "list", *file])
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "admin: every tenant, may live, render, read, manage, infer, deliver, avatars *"
    )
    assert lines[1].startswith("phone: tenant acme, may live, read, avatars acme-*, demo, expires")
    run(["keys", "list", "--json", *file])
    said = capsys.readouterr().out
    assert [row["name"] for row in json.loads(said)] == ["admin", "phone"]
    assert key not in said

    run(["keys", "revoke", "phone", *file])
    assert capsys.readouterr().out == "phone: revoked\n"
    assert [one.name for one in KeyFile(tmp_path / "keys.json").listed()] == ["admin"]


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["create", "Phone"], InvalidInput, "the key's name is 'Phone'; allowed are"),
        (["create", "phone", "--may", "fly"], InvalidInput, "operations are fly; allowed are live"),
        (["create", "phone", "--avatars", ","], InvalidInput, "a pattern of avatars is empty"),
        (["revoke", "phone"], NotFound, "there is no key phone in keys.json"),
    ],
)
def test_wrong_use_is_told(
    tmp_path: Path, arguments: list[str], kind: type[LipwireError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(["keys", *arguments, "--file", str(tmp_path / "keys.json")])


def test_a_file_without_keys_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["keys", "list", "--file", str(tmp_path / "keys.json")])
    assert capsys.readouterr().out.startswith("no keys in ")
