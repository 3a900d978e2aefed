"""What Lipwire has to be allowed in Redis, as the documentation says."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.support.redisserver import RedisServer, needs_redis
from tests.support.waiting import WAIT_S, until

from lipwire.security.shared.counts import Asked, SharedCounts
from lipwire.security.shared.minutes import SharedMinutes
from lipwire.security.shared.tickettexts import SharedTexts
from lipwire.stores import RedisAddress, RedisConnection, Script

pytestmark = needs_redis
COUNT = Script("return redis.call('INCR', KEYS[1])")
DOCUMENTATION = Path(__file__).parents[3] / "docs" / "deployment.md"
PATIENT: dict[str, Any] = {"timeout_s": WAIT_S, "retry_s": 0.05, "beat_s": 0.05}


def test_the_documented_rights_are_enough_and_for_its_own_keys_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (written,) = re.findall(r"`(ACL SETUSER .+?)`", DOCUMENTATION.read_text("utf-8"))
    with RedisServer(tmp_path / "redis") as server:
        server.ask(*shlex.split(written))
        address = RedisAddress("127.0.0.1", server.port, username="lipwire", password="PASSWORD")
        with RedisConnection(address, **PATIENT) as redis:
            counts = SharedCounts(redis)
            assert counts.count("acme", [Asked("requests", 1, 5, 60)])[0] is None
            until(lambda: server.names("lipwire:members"))
            texts = SharedTexts(redis)
            texts.put("ab", "text", 60)
            assert texts.get("ab") is not None
            assert texts.take("ab", 60)
            SharedMinutes(redis).exchange("2030-01", "a", {"acme": 5.0}, left_s=100)
            server.ask("RPUSH", "lipwire:damaged", "x")
            redis.script(COUNT, ["lipwire:damaged"], [])
            assert redis.stats().missed == 1
            assert redis.up
        with RedisConnection(address, prefix="other", **PATIENT) as redis:
            assert not redis.up
    assert "is away: this user has no permissions to access one of the keys" in caplog.text.lower()
