"""Keys at a URL, of servers that answer well, badly and not at all."""

import json
import threading
from http.client import HTTPException

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.waiting import WAIT_S, Clock, until
from tests.support.watchedlock import WatchedLock

from lipwire.domain import Unauthenticated, Unavailable
from lipwire.security import jwks
from lipwire.security.jwks import JwksKeys
from lipwire.security.outgoing import RefusedUrlError, Times

KEY = json.loads(
    jwt.algorithms.RSAAlgorithm.to_jwk(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    )
)
SOUND = {"keys": [{**KEY, "kid": "one", "use": "sig", "alg": "RS256"}]}


class Answers:
    """What ``fetched`` gives: bytes, or an error that it raises."""

    def __init__(self) -> None:
        self.given: bytes | Exception = json.dumps(SOUND).encode()
        self.asked = 0

    def __call__(self, url: str, **_: object) -> bytes:
        self.asked += 1
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    monkeypatch.setattr(jwks, "fetched", answers)
    return answers


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(answers: Answers, clock: Clock) -> JwksKeys:
    return JwksKeys("https://id.example.org/keys", 30.0, clock)


def test_keys_are_asked_for_again_after_five_minutes(
    keys: JwksKeys, answers: Answers, clock: Clock
) -> None:
    for _ in range(3):
        assert keys.key("one").key_id == "one"
    clock.now += 299
    keys.key("one")
    assert answers.asked == 1
    clock.now += 1
    keys.key("one")
    assert answers.asked == 2


def test_unknown_keys_ask_twice_a_minute_at_most(
    keys: JwksKeys, answers: Answers, clock: Clock
) -> None:
    for _ in range(60):
        with pytest.raises(Unauthenticated, match="signed with an unknown key"):
            keys.key("another")
        clock.now += 1
    assert answers.asked == 2


@pytest.mark.parametrize("name", [None, "", 5, ["one"], {"one": 1}])
def test_what_names_no_key_has_none(keys: JwksKeys, name: object) -> None:
    with pytest.raises(Unauthenticated):
        keys.key(name)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"no JSON",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": 5}',
        b'{"keys": [5, null, [], {}]}',
        b'{"keys": [{"kid": "one", "kty": "RSA", "n": "!", "e": 5}]}',
        b'{"keys": [{"kid": ["one"], "kty": "EC", "crv": [1]}]}',
        b'{"keys": [{"kid": "one", "kty": "EC", "crv": {}, "alg": []}]}',
        json.dumps({"keys": [{**KEY, "kid": "one", "use": "enc"}]}).encode(),
        b"[" * 100_000,
        b'{"keys": ' + b"9" * 10_000 + b"}",
        HTTPException("status 500; allowed is 200"),
        RefusedUrlError("it redirects more than 3 times"),
        TimeoutError(),
        ConnectionRefusedError(),
    ],
)
def test_where_there_are_no_keys_that_is_said_and_not_asked_again_at_once(
    keys: JwksKeys, answers: Answers, clock: Clock, given: bytes | Exception
) -> None:
    answers.given = given
    for _ in range(5):
        with pytest.raises(Unavailable, match=r"the keys of security\.jwt\.jwks_url cannot be had"):
            keys.key("one")
    assert answers.asked == 1
    clock.now += 5
    answers.given = json.dumps(SOUND).encode()
    keys.key("one")


def test_a_key_that_is_of_no_use_leaves_the_others(keys: JwksKeys, answers: Answers) -> None:
    broken = [{"kid": "one", "kty": "RSA"}, {"kid": "two", "kty": "EC", "crv": ["P-256"]}]
    answers.given = json.dumps({"keys": [*broken, *SOUND["keys"]]}).encode()
    keys.key("one")
    with pytest.raises(Unauthenticated):
        keys.key("two")


def test_known_keys_count_while_the_server_does_not_answer(
    keys: JwksKeys, answers: Answers, clock: Clock
) -> None:
    keys.key("one")
    answers.given = ConnectionRefusedError()
    clock.now += 60
    with pytest.raises(Unavailable):
        keys.key("another")
    keys.key("one")


def test_the_pause_after_a_failure_begins_when_it_has_failed(
    keys: JwksKeys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who waited for the attempt do not each make one of their own."""
    asked: list[float] = []

    def slow(url: str, **_: object) -> bytes:
        asked.append(clock.now)
        clock.now += 5  # until its time is over
        raise TimeoutError

    monkeypatch.setattr(jwks, "fetched", slow)
    began_s = clock.now
    for _ in range(3):
        with pytest.raises(Unavailable):
            keys.key("one")
    assert asked == [began_s]
    clock.now += 5
    with pytest.raises(Unavailable):
        keys.key("one")
    assert asked == [began_s, began_s + 10]


def test_a_fresh_key_is_found_while_another_is_asked_for(
    keys: JwksKeys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.key("one")
    clock.now += 60
    lock = WatchedLock()
    monkeypatch.setattr(keys, "_lock", lock)
    asking, may_answer = threading.Event(), threading.Event()

    def slow(url: str, **_: object) -> bytes:
        asking.set()
        may_answer.wait(WAIT_S)
        raise ConnectionRefusedError

    monkeypatch.setattr(jwks, "fetched", slow)
    found: list[str | None] = []

    def ask_for_another() -> None:
        with pytest.raises(Unavailable):
            keys.key("another")

    def ask_for_a_known_one() -> None:
        found.append(keys.key("one").key_id)

    first = threading.Thread(target=ask_for_another)
    first.start()
    assert asking.wait(WAIT_S)
    second = threading.Thread(target=ask_for_a_known_one)
    second.start()
    until(lambda: found or lock.waited_for.is_set())
    found_at_once = list(found)
    may_answer.set()
    first.join(WAIT_S)
    second.join(WAIT_S)
    assert found_at_once == ["one"]


def test_what_is_asked_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []

    def fetched(url: str, **options: object) -> bytes:
        told.append(options)
        return json.dumps(SOUND).encode()

    monkeypatch.setattr(jwks, "fetched", fetched)
    JwksKeys("https://id.example.org/keys", 30.0).key("one")
    times = Times(each_s=5.0, all_s=5.0)
    assert told == [{"given_by": "operator", "times": times, "max_bytes": 256 * 1024}]
