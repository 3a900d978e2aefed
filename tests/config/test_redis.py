"""The Redis server that several servers share."""

from pathlib import Path

import pytest

from lipwire.config import CompositingConfig, load_compositing_config, load_inference_config
from lipwire.domain import InvalidInput

WORD = "a-very-secret-word"


def load(tmp_path: Path, yaml: str, **variables: str) -> CompositingConfig:
    file = tmp_path / "config.yaml"
    file.write_text(f"{yaml}\n")
    return load_compositing_config(file, variables)


def test_without_a_url_nothing_is_shared(tmp_path: Path) -> None:
    redis = load(tmp_path, "").redis
    assert not redis.enabled
    assert (redis.prefix, redis.timeout_ms, redis.retry_seconds) == ("lipwire", 100, 2)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://cache", ("cache", 6379, 0, False, (None, None))),
        ("redis://cache:7000/3", ("cache", 7000, 3, False, (None, None))),
        ("redis://cache/", ("cache", 6379, 0, False, (None, None))),
        ("rediss://lipwire:a%2Fb@cache", ("cache", 6379, 0, True, ("lipwire", "a/b"))),
        ("redis://:word@[::1]:1", ("::1", 1, 0, False, (None, "word"))),
    ],
)
def test_the_parts_of_a_url(tmp_path: Path, url: str, read: tuple[object, ...]) -> None:
    redis = load(tmp_path, f"redis: {{url: '{url}'}}").redis
    assert (redis.host, redis.port, redis.database, redis.encrypted, redis.credentials) == read


def test_the_password_may_be_a_variable(tmp_path: Path) -> None:
    config = load(tmp_path, "redis: {url: 'redis://me@cache'}", LIPWIRE_REDIS__PASSWORD=WORD)
    assert config.redis.credentials == ("me", WORD)
    assert WORD not in f"{config!r} {config.model_dump()}"


@pytest.mark.parametrize(
    "url",
    [
        *("cache:6379", "http://cache", "redis://", "redis://cache:0", "redis://cache:99999"),
        *("redis://cache/a", "redis://cache/0?x=1", "redis://cache#x", "redis://ca che"),
        "redis://cache/-1",
    ],
)
def test_what_is_no_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    hidden = url.replace("://", f"://:{WORD}@")
    with pytest.raises(
        InvalidInput, match=r"redis\.url is not as it has to be; allowed is redis:// or rediss://"
    ) as refused:
        load(tmp_path, f"redis: {{url: '{hidden}'}}")
    assert WORD not in str(refused.value)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("{url: 'redis://:a@b', password: c}", "url has a password, and password is set"),
        ("{url: 'rediss://b', cert: c}", "cert and key belong together"),
        ("{url: 'redis://b', ca: c}", "ca and cert count with rediss:// alone"),
        ("{prefix: 'a:b'}", r"redis\.prefix is a:b; allowed is 1 to 60 letters"),
        ("{timeout_ms: 1}", r"redis\.timeout_ms is 1; allowed is 5 to 10000"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, yaml: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        load(tmp_path, f"redis: {yaml}")


def test_another_machine_without_encryption_is_noted(tmp_path: Path) -> None:
    def notes(url: str) -> list[str]:
        return load(tmp_path, f"redis: {{url: '{url}'}}").notes()

    (note,) = notes("redis://:word@cache")
    assert note.startswith("redis.url: cache is another machine")
    assert notes("rediss://cache") == notes("redis://127.0.0.1") == notes("redis://localhost") == []


def test_it_is_the_compositing_servers(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("redis: {url: 'redis://cache'}\n")
    with pytest.raises(InvalidInput, match="redis is a key of the compositing server"):
        load_inference_config(file, {})
