"""Forgetting a person while a server runs."""

import shutil
from pathlib import Path

import pytest
from tests.wiring.servers.asking import Serve

from lipwire.domain import InvalidInput, NotFound
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.rpc.received import Ended
from lipwire.wiring import erasing


def reason_of(session: ConverseStream) -> str:
    """Why it has ended, when it has."""
    return next(each.reason for each in session if isinstance(each, Ended))


@pytest.mark.slow
def test_an_avatar_is_erased_and_those_who_see_it_are_told(serve: Serve, root: Path) -> None:
    connection = serve(by_speed=False)
    with AvatarConnection(connection.address) as client:
        told = client.erase("a", dry_run=True)
        assert [each.what for each in told] == ["package"]
        assert told[0].files > 3
        assert told[0].size_bytes > 1000
        with client.converse("a") as session, client.converse("b") as other:
            assert client.erase("a") == told
            assert reason_of(session) == "avatar_removed"
            other.keep_alive()
            next(iter(other))
        assert sorted(path.name for path in root.iterdir()) == ["b", "c"]
        for again in (lambda: client.erase("a"), lambda: client.converse("a")):
            with pytest.raises(NotFound, match="no avatar named a"):
                again()


def test_sessions_of_an_avatar_that_was_removed_by_hand_end(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_LOOK_EVERY_S", 0.05)
    connection = serve()
    with AvatarConnection(connection.address) as client, client.converse("a") as session:
        shutil.rmtree(root / "a")
        assert reason_of(session) == "avatar_removed"


def test_what_came_with_lipwire_or_is_a_link_stays(serve: Serve, root: Path) -> None:
    (root / "d").symlink_to(root / "b")
    with AvatarConnection(serve().address) as client:
        with pytest.raises(InvalidInput, match="d is a link to another folder") as refused:
            client.erase("d")
        assert str(root) not in str(refused.value)
    assert (root / "b").is_dir()
