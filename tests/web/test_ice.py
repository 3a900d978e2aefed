import base64
import hashlib
import hmac

from lipwire.web.ice import LIFETIME_S, IceServers

NOW_S = 1_900_000_000.7


def test_what_viewers_are_told_of_ice_servers() -> None:
    ice = IceServers(("stun:one", "turn:two:443?transport=tcp"), 'an "id"', "back\\slash")
    assert ice.links() == [
        '<stun:one>; rel="ice-server"',
        '<turn:two:443?transport=tcp>; rel="ice-server"; username="an \\"id\\""'
        '; credential="back\\\\slash"; credential-type="password"',
    ]


def test_one_credential_for_all_is_told_as_it_is() -> None:
    ice = IceServers(("turn:two",), "anna", "of anna")
    assert ice.issued(NOW_S) is ice


def test_a_credential_of_ones_own_is_for_a_day() -> None:
    ice = IceServers(("turn:two",), "anna", secret="shared", relay_only=True)
    issued = ice.issued(NOW_S)
    assert issued.username == f"{1_900_000_000 + LIFETIME_S}:anna"
    key = hmac.new(b"shared", issued.username.encode(), hashlib.sha1).digest()
    assert issued.credential == base64.b64encode(key).decode()
    assert issued.relay_only
    assert "shared" not in str(issued.links()) + repr(issued)
    assert issued.username in issued.links()[0]


def test_viewers_without_a_name_have_one_each() -> None:
    ice = IceServers(("turn:two",), secret="shared")
    names = {ice.issued(NOW_S).username for _ in range(20)}
    assert len(names) == 20
