"""Who asks, from where, and whether they may."""

from pathlib import Path

import pytest

from lipwire.domain import EVERYTHING, InvalidInput, PermissionDenied, Unauthenticated
from lipwire.security import OPEN, AccessControl, AllowedAddresses, Credentials, KeyFile


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_an_open_server_tells_nobody_apart() -> None:
    assert not OPEN.closed
    assert not OPEN.asks
    assert AccessControl(allow_from=AllowedAddresses(["10.0.0.1"])).asks
    assert OPEN.access(Credentials("192.0.2.1", "anything")) is EVERYTHING


def test_a_key_says_who_asks(keys: KeyFile) -> None:
    control = AccessControl(keys=keys)
    key = keys.create("phone", tenant="acme")
    assert control.closed
    assert control.access(Credentials(token=key)).tenant == "acme"
    for token in ("", "a.b.c", key[:-1]):
        with pytest.raises(Unauthenticated):
            control.access(Credentials(token=token))


def test_a_named_certificate_may_do_everything(keys: KeyFile) -> None:
    control = AccessControl(keys=keys, certificates=("compositing-1",))
    access = control.access(Credentials(certificates=("compositing-1", "other")))
    assert (access.subject, access.sees_all) == ("certificate of compositing-1", True)
    with pytest.raises(Unauthenticated):
        control.access(Credentials(certificates=("compositing-2",)))


def test_keys_and_tokens_that_the_server_does_not_take_are_told() -> None:
    control = AccessControl(certificates=("a",))
    with pytest.raises(Unauthenticated, match="knows no API keys"):
        control.access(Credentials(token="lipwire_a_b"))
    with pytest.raises(Unauthenticated, match="knows no tokens"):
        control.access(Credentials(token="a.b.c"))


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", True),
        ("nonsense", False),
        ("", True),  # a Unix socket
    ],
)
def test_addresses_are_allowed_by_networks(address: str, allowed: bool) -> None:
    networks = AllowedAddresses(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "fe80::/10"])
    assert networks.allow(address) == allowed
    control = AccessControl(allow_from=networks)
    if allowed:
        control.access(Credentials(address))
    else:
        with pytest.raises(PermissionDenied, match=r"not allowed \(security.allow_from\)"):
            control.access(Credentials(address))


def test_without_a_list_all_addresses_are_allowed() -> None:
    assert AllowedAddresses([]).allow("203.0.113.1")


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "example.org", "10.0.0", "*"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="allow_from has"):
        AllowedAddresses([text])
