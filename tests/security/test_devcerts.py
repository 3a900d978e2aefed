"""Certificates of an authority of one's own."""

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509

from lipwire.cli.app import app
from lipwire.domain import InvalidInput, StorageFailed
from lipwire.security.devcerts import NAMES, make_certificates

NOW = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)


def test_what_is_made_is_for_the_hosts_and_the_client(tmp_path: Path) -> None:
    paths = make_certificates(tmp_path / "certs", ["a.example", "::1"], client="one", now=NOW)
    assert sorted(path.name for path in paths) == sorted(NAMES)
    found = {
        name: x509.load_pem_x509_certificate((tmp_path / "certs" / f"{name}.crt").read_bytes())
        for name in ("ca", "server", "client")
    }
    names = x509.SubjectAlternativeName
    server = found["server"].extensions.get_extension_for_class(names).value
    assert server.get_values_for_type(x509.DNSName) == ["a.example"]
    assert [str(one) for one in server.get_values_for_type(x509.IPAddress)] == ["::1"]
    client = found["client"].extensions.get_extension_for_class(names).value
    assert client.get_values_for_type(x509.DNSName) == ["one"]
    for name in ("server", "client"):
        found[name].verify_directly_issued_by(found["ca"])
        assert found[name].not_valid_before_utc < NOW
        lasts = found[name].not_valid_after_utc - NOW
        assert lasts == datetime.timedelta(days=397)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    for path in make_certificates(tmp_path, ["localhost"], now=NOW):
        readable = stat.S_IMODE(path.stat().st_mode) & 0o077
        assert not readable or path.suffix == ".crt"


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("mine")
    with pytest.raises(InvalidInput, match=r"server.key is there already"):
        make_certificates(tmp_path, ["localhost"], now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["server.key"]


@pytest.mark.parametrize("host", ["", "a b", "http://a", "a:1", "x" * 254, "z\u00f6e"])
def test_hosts_are_names_or_addresses(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="host is"):
        make_certificates(tmp_path, [host], now=NOW)
    with pytest.raises(InvalidInput, match="there is no host"):
        make_certificates(tmp_path, [], now=NOW)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed):
        make_certificates(tmp_path / "file", ["localhost"], now=NOW)


def test_the_command_says_how_they_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "certs")
    app(["certs", "dev", folder, "--host", "a.example"], standalone_mode=False)
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == len(NAMES)
    assert f"--tls-ca {tmp_path}/certs/ca.crt" in told.err
