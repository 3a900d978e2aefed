"""Certificates for a laptop or a private network: an authority of one's own, and what it signs."""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lipwire.domain import InvalidInput
from lipwire.domain.newfiles import new_path, storage_errors

_DAYS: Final = 397
"""The longest that browsers accept."""
_BEGINS_EARLIER: Final = datetime.timedelta(hours=1)
"""Clocks differ."""
NAMES: Final = ("ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key")


def make_certificates(
    folder: Path, hosts: Sequence[str], *, client: str = "client", now: datetime.datetime
) -> list[Path]:
    """Write certificates for TLS, with their private keys, into ``folder``, and return the paths of
    the six files (PEM).

    These are a certificate authority (ca.crt, ca.key), a certificate that it signs for a server
    (server.crt, server.key), and one for a client (client.crt, client.key). ``folder`` is made
    where it is missing. ``hosts`` are the DNS names and IP addresses, at least one, under which
    clients reach the server; ``client`` is the name in the client's certificate. ``now`` is the
    present time, with a time zone or in UTC; the certificates are valid for 397 days from then.

    Raises InvalidInput where one of the files is there already, where there is no host, or where
    one is no name or address; StorageFailed where a file cannot be written.
    """
    paths = {name: folder / name for name in NAMES}
    there = [path for path in paths.values() if path.exists()]
    if there:
        raise InvalidInput(f"{there[0]} is there already; choose another folder")
    if not hosts:
        raise InvalidInput("there is no host; name one, as localhost")
    alternatives = [_alternative(host) for host in hosts]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Lipwire development authority")
    ca = (
        _builder(ca_name, ca_name, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    made = {"ca": (ca, ca_key)}
    for who, common, names, use in (
        ("server", hosts[0], alternatives, ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", client, [x509.DNSName(client)], ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(common), ca_name, key, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        made[who] = (certificate, key)
    for who, (certificate, key) in made.items():
        _write(paths[f"{who}.key"], _private_pem(key), mode=0o600)
        _write(
            paths[f"{who}.crt"], certificate.public_bytes(serialization.Encoding.PEM), mode=0o644
        )
    return list(paths.values())


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host or len(host) > 253 or not host.isascii() or any(c in host for c in " /:@"):
        raise InvalidInput(f"host is {host[:60]!r}; allowed are names and addresses")
    return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEGINS_EARLIER)
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, *, mode: int) -> None:
    """Raises StorageFailed."""
    with storage_errors(path), new_path(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
