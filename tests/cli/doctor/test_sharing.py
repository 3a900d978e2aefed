import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import until

from lipwire.cli.doctor.checks import Check, Outcome
from lipwire.cli.doctor.sharing import redis, renders
from lipwire.config import CompositingConfig
from lipwire.config.redissettings import RedisSettings
from lipwire.config.rendersettings import RenderCacheSettings, RendersSettings

NOBODY = RedisSettings(url=SecretStr("redis://127.0.0.1:9"))


def outcomes(checks: Sequence[Check]) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in checks}


@pytest.mark.slow
@needs_redis
def test_a_redis_that_answers_is_ok(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        check = redis(CompositingConfig(redis=RedisSettings(url=SecretStr(server.url))))
        assert (check.outcome, check.seen) == (Outcome.OK, f"127.0.0.1:{server.port} answers")
        until(lambda: server.names() == [])


@needs_redis
def test_a_redis_that_takes_nothing_is_a_fault(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", "--maxmemory", "1") as server:
        check = redis(CompositingConfig(redis=RedisSettings(url=SecretStr(server.url))))
    assert check.outcome is Outcome.FAULT
    assert "maxmemory" in check.seen


def test_a_redis_that_is_away_is_a_fault() -> None:
    check = redis(CompositingConfig(redis=NOBODY))
    assert check.outcome is Outcome.FAULT
    assert "127.0.0.1:9" in check.seen
    assert redis(CompositingConfig()).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.slow
@pytest.mark.parametrize(("budget_mb", "outcome"), [(1, Outcome.OK), (1 << 30, Outcome.WARNING)])
def test_there_has_to_be_room_for_finished_videos(
    tmp_path: Path, budget_mb: int, outcome: Outcome
) -> None:
    (tmp_path / "video").write_bytes(bytes(50_000_000))
    settings = RendersSettings(folder=tmp_path, disk_budget_mb=budget_mb)
    (check,) = renders(CompositingConfig(renders=settings))
    assert check.outcome is outcome
    assert check.seen.startswith(f"0.1 GB used in {tmp_path}, ")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX's files")
def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = RendersSettings(folder=tmp_path / "file" / "renders")
    assert outcomes(list(renders(CompositingConfig(renders=settings)))) == {
        "finished videos": Outcome.FAULT
    }
    assert outcomes(list(renders(CompositingConfig()))) == {
        "finished videos": Outcome.NOT_APPLICABLE
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "outcome"), [("file://{folder}", Outcome.OK), ("s3://nobody/x", Outcome.FAULT)]
)
def test_the_store_of_shared_videos_is_asked(tmp_path: Path, url: str, outcome: Outcome) -> None:
    cache = RenderCacheSettings(
        url=url.format(folder=tmp_path),
        endpoint_url="http://127.0.0.1:9" if url.startswith("s3") else None,
        timeout_seconds=0.5,
    )
    settings = RendersSettings(folder=tmp_path / "renders", disk_budget_mb=1, cache=cache)
    checks = list(renders(CompositingConfig(redis=NOBODY, renders=settings)))
    assert outcomes(checks) == {"finished videos": Outcome.OK, "renders.cache": outcome}
