"""JSON Web Tokens: what counts, and the classic attacks."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.support.waiting import Clock

from lipwire.domain import Access, InvalidInput, LipwireError, Unauthenticated, Unavailable
from lipwire.security import TokenRules, Tokens

ISSUER: Final = "https://id.example.org"
RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC: Final = ec.generate_private_key(ec.SECP256R1())
ED: Final = ed25519.Ed25519PrivateKey.generate()
KEYS: Final[dict[str, Any]] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
SECRET: Final = b"0123456789abcdef0123456789abcdef"


def pem(private: Any) -> bytes:
    public: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., Tokens]


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Make:
    def tokens(*algorithms: str, key: bytes | None = None) -> Tokens:
        file = tmp_path / "key"
        file.write_bytes(key or pem(KEYS[algorithms[0]]))
        return Tokens(TokenRules(algorithms, ISSUER, "lipwire"), key_file=file, now=clock)

    return tokens


def claims(clock: Clock, **others: Any) -> dict[str, Any]:
    told = {
        "iss": ISSUER,
        "aud": "lipwire",
        "sub": "phone",
        "exp": clock.now + 60,
        "scope": "live read nonsense",
        "tenant": "acme",
        "avatars": ["acme-*"],
    }
    return {name: value for name, value in {**told, **others}.items() if value is not None}


def signed(clock: Clock, algorithm: str = "RS256", **others: Any) -> str:
    return jwt.encode(claims(clock, **others), KEYS[algorithm], algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_allows_what_its_claims_say(make: Make, clock: Clock, algorithm: str) -> None:
    tokens = make(algorithm)
    wanted = Access("token of phone", "acme", frozenset({"live", "read"}), ("acme-*",))
    token = signed(clock, algorithm)
    assert tokens.access(token) == wanted
    assert tokens.access(token) == wanted  # whose signature is known now


def test_a_shared_secret_counts_where_it_stands_alone(make: Make, clock: Clock) -> None:
    tokens = make("HS256", key=SECRET + b"\n")
    token = jwt.encode(claims(clock), SECRET, algorithm="HS256")
    assert tokens.access(token).tenant == "acme"


def test_what_is_not_claimed_is_not_given(make: Make, clock: Clock) -> None:
    access = make("RS256").access(signed(clock, scope=None, avatars=None, tenant=None, sub=None))
    assert access == Access("token of ", "", frozenset(), ())


def unsigned(header: dict[str, Any], body: dict[str, Any], signature: str = "") -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, body)
    ]
    return ".".join([*parts, signature])


def with_public_key_as_secret(clock: Clock) -> str:
    """Signed by HS256 with what everybody knows: the public key."""
    import hashlib
    import hmac

    head = unsigned({"alg": "HS256", "typ": "JWT"}, claims(clock)).rstrip(".")
    mac = hmac.new(pem(RSA), head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def with_own_key_in_the_header(clock: Clock) -> str:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    headers = {"jwk": jwk, "jku": "http://attacker.example/keys", "kid": "../../etc/passwd"}
    return jwt.encode(claims(clock), own, algorithm="RS256", headers=headers)


ATTACKS: Final[dict[str, Callable[[Clock], str]]] = {
    "no signature": lambda clock: unsigned({"alg": "none"}, claims(clock)),
    "None": lambda clock: unsigned({"alg": "None"}, claims(clock)),
    "no algorithm": lambda clock: unsigned({}, claims(clock)),
    "the public key as a secret": with_public_key_as_secret,
    "a key in the header": with_own_key_in_the_header,
    "another key": lambda clock: jwt.encode(
        claims(clock),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        algorithm="RS256",
    ),
    "another way of signing": lambda clock: signed(clock, "ES256"),
    "expired": lambda clock: signed(clock, exp=clock.now - 31),
    "never expires": lambda clock: signed(clock, exp=None),
    "expires at a text": lambda clock: signed(clock, exp="never"),
    "not yet": lambda clock: signed(clock, nbf=clock.now + 31),
    "another issuer": lambda clock: signed(clock, iss="https://id.example.com"),
    "no issuer": lambda clock: signed(clock, iss=None),
    "another audience": lambda clock: signed(clock, aud="other"),
    "no audience": lambda clock: signed(clock, aud=None),
    "changed": lambda clock: signed(clock)[:-8] + "AAAAAAAA",
    "other claims": lambda clock: ".".join(
        [
            signed(clock).split(".")[0],
            unsigned({}, claims(clock, tenant="other")).split(".")[1],
            signed(clock).split(".")[2],
        ]
    ),
    "empty": lambda clock: "",
    "dots": lambda clock: "..",
    "no token": lambda clock: "hello",
    "huge": lambda clock: signed(clock, more="x" * 10_000),
    "deep": lambda clock: ".".join(
        [
            base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("="),
            base64.urlsafe_b64encode(b"[" * 2000).decode().rstrip("="),
            "",
        ]
    ),
    "no text": lambda clock: "\x00\ud800.\x00.\x00",
    "scope of numbers": lambda clock: signed(clock, scope=[1, 2]),
    "avatars as a text": lambda clock: signed(clock, avatars="*"),
    "avatars of numbers": lambda clock: signed(clock, avatars=[1]),
    "an empty pattern": lambda clock: signed(clock, avatars=[""]),
    "a tenant of objects": lambda clock: signed(clock, tenant={"a": 1}),
    "a long tenant": lambda clock: signed(clock, tenant="x" * 201),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_what_does_not_count_is_refused(make: Make, clock: Clock, name: str) -> None:
    tokens = make("RS256")
    with pytest.raises(Unauthenticated):
        tokens.access(ATTACKS[name](clock))
    tokens.access(signed(clock))


def test_a_token_whose_signature_is_known_expires_all_the_same(make: Make, clock: Clock) -> None:
    tokens, token = make("RS256"), signed(clock)
    tokens.access(token)
    clock.now += 60 + 29
    tokens.access(token)
    clock.now += 1
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.access(token)


@pytest.mark.parametrize(
    ("algorithms", "key", "said"),
    [
        ((), SECRET, "algorithms has none"),
        (("none",), SECRET, "algorithms has none; allowed are RS256"),
        (("HS512",), SECRET, "algorithms has HS512"),
        (("HS256", "RS256"), SECRET, "HS256 stands alone"),
        (("HS256",), SECRET[1:], "key_file has 31 bytes"),
        (("RS256",), SECRET, "holds no key for RS256"),
        (("ES256", "EdDSA"), pem(RSA), "holds no key for ES256, EdDSA"),
    ],
)
def test_settings_that_are_not_safe_are_refused(
    make: Make, algorithms: tuple[str, ...], key: bytes, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        make(*algorithms, key=key)


def test_one_source_of_keys_is_needed(tmp_path: Path) -> None:
    rules = TokenRules(("RS256",), ISSUER, "lipwire")
    for sources in ({}, {"key_file": tmp_path / "key", "jwks_url": "http://localhost/"}):
        with pytest.raises(InvalidInput, match="needs key_file or jwks_url"):
            Tokens(rules, **sources)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="No such file"):
        Tokens(rules, key_file=tmp_path / "missing")
    with pytest.raises(InvalidInput, match="HS256"):
        Tokens(TokenRules(("HS256",), ISSUER, "lipwire"), jwks_url="http://localhost/")


@contextmanager
def serving(keys: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """A server with the public keys of ``keys``, by their ids; its URL, and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            told = []
            for kid, key in list(keys.items()):
                one = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
                told.append({**one, "kid": kid, "use": "sig", "alg": "RS256"})
            data = json.dumps({"keys": told}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys", asked
        finally:
            server.shutdown()
            thread.join()


def test_keys_of_a_url_are_kept_and_changed(clock: Clock) -> None:
    newer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = {"one": RSA}
    with serving(keys) as (url, asked):
        tokens = Tokens(
            TokenRules(("RS256",), ISSUER, "lipwire"), jwks_url=url, now=clock, jwks_pause_s=0
        )
        for number in range(3):
            token = jwt.encode(
                claims(clock, sub=str(number)), RSA, algorithm="RS256", headers={"kid": "one"}
            )
            assert tokens.access(token).tenant == "acme"
        assert len(asked) == 1
        with pytest.raises(Unauthenticated):
            tokens.access(jwt.encode(claims(clock), newer, "RS256", headers={"kid": "one"}))
        with pytest.raises(Unauthenticated):
            tokens.access(jwt.encode(claims(clock), newer, "RS256"))  # which names no key
        keys["two"] = newer
        tokens.access(jwt.encode(claims(clock), newer, "RS256", headers={"kid": "two"}))
    with pytest.raises(LipwireError) as refused:
        tokens.access(jwt.encode(claims(clock), newer, "RS256", headers={"kid": "three"}))
    assert type(refused.value) in (Unavailable, Unauthenticated)
    tokens.access(jwt.encode(claims(clock, sub="x"), RSA, "RS256", headers={"kid": "one"}))


def test_a_token_ends_with_its_key_and_not_with_the_server_of_keys(clock: Clock) -> None:
    keys = {"one": RSA, "two": RSA}
    lifetime = claims(clock, exp=clock.now + 86_400)
    token, another = (jwt.encode(lifetime, RSA, "RS256", headers={"kid": kid}) for kid in keys)
    seconds = Clock()
    with serving(keys) as (url, asked):
        tokens = Tokens(
            TokenRules(("RS256",), ISSUER, "lipwire"), jwks_url=url, now=clock, clock=seconds
        )
        tokens.access(token)
        tokens.access(another)
        del keys["one"]
        for clock_of in (clock, seconds):
            clock_of.now += 299
        tokens.access(token)
        assert len(asked) == 1
        for clock_of in (clock, seconds):
            clock_of.now += 1
        with pytest.raises(Unauthenticated):
            tokens.access(token)
        assert tokens.access(another).tenant == "acme"
        assert len(asked) == 2
    for clock_of in (clock, seconds):
        clock_of.now += 301
    assert tokens.access(another).tenant == "acme"  # nobody answers any more
    with pytest.raises(Unavailable):
        tokens.access(token)
    clock.now += 86_400
    with pytest.raises(LipwireError):
        tokens.access(another)
