"""The files that connections are encrypted with: whether they can be read, until when certificates
count, and who else can read private keys."""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lipwire.cli.doctor.checks import Check, fault, not_applicable, ok, warning

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from lipwire.config import ServerConfig

_SOON: Final = datetime.timedelta(days=14)
_RENEW: Final = "renew it; servers take changed files up for the next connections"


def certificates(config: ServerConfig, now: datetime.datetime) -> Iterator[Check]:
    """Yield checks of the certificates and private keys that ``config`` names: whether they can be
    read and belong together, until when certificates are valid, and who else can read the keys.
    Where it names none, yields one check, NOT_APPLICABLE. ``now`` is the present time, with a time
    zone."""
    from lipwire.config import CompositingConfig, InferenceConfig

    pairs: list[tuple[str, Path | None, Path | None]] = []
    authorities: list[tuple[str, Path | None]] = []
    if isinstance(config, CompositingConfig | InferenceConfig):
        tls = config.server.tls
        pairs.append(("server.tls", tls.cert, tls.key))
        authorities.append(("server.tls.client_ca", tls.client_ca))
    if isinstance(config, CompositingConfig):
        ask = config.inference_server.tls
        pairs.append(("inference_server.tls", ask.cert, ask.key))
        authorities.append(("inference_server.tls.ca", ask.ca))
    if not any(cert for _, cert, _ in pairs) and not any(path for _, path in authorities):
        yield not_applicable("certificates", "none is named: nothing is encrypted")
        return
    for section, cert, key in pairs:
        if cert is not None and key is not None:
            yield from _pair(section, cert, key, now)
    for name, path in authorities:
        if path is not None:
            yield _certificate(name, path, now)[0]


def _pair(section: str, cert: Path, key: Path, now: datetime.datetime) -> Iterator[Check]:
    check, certificate = _certificate(f"{section}.cert", cert, now)
    yield check
    name = f"{section}.key"
    try:
        yield _permissions(name, key)
        private = _private_key(key)
    except OSError as error:
        yield _unreadable(name, key, error)
        return
    except (ValueError, TypeError) as error:  # no PEM, another form; a password
        yield fault(
            name,
            f"{key}: {' '.join(str(error).split())[:120]}",
            "a private key, PEM, without a password",
            "write the key as PKCS #8 without a password (openssl pkey)",
        )
        return
    if certificate is not None and _public(certificate.public_key()) != _public(
        private.public_key()
    ):
        yield fault(
            name,
            f"{key} belongs to another certificate",
            f"the key of {cert}",
            "name the certificate and the key that were made together",
        )


def _certificate(name: str, path: Path, now: datetime.datetime) -> tuple[Check, Certificate | None]:
    """The check of a file of certificates, and the first of them; None where it has none."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return _unreadable(name, path, error), None
    except ValueError:
        return (
            fault(name, f"{path} has no certificate", "certificates, PEM", "name another file"),
            None,
        )
    first = min(found, key=lambda each: each.not_valid_after_utc)
    until = first.not_valid_after_utc
    begins = max(each.not_valid_before_utc for each in found)
    wanted = f"valid for {_SOON.days} days or more"
    if begins > now:
        seen = f"valid from {begins:%Y-%m-%d %H:%M} UTC on"
        return fault(name, seen, wanted, "look at the clock, or make it anew"), found[0]
    if until <= now:
        return fault(name, f"expired on {until:%Y-%m-%d %H:%M} UTC", wanted, _RENEW), found[0]
    seen = f"valid until {until:%Y-%m-%d}, {(until - now).days} days"
    if until - now < _SOON:
        return warning(name, seen, wanted, _RENEW), found[0]
    return ok(name, seen, wanted), found[0]


def _permissions(name: str, key: Path) -> Check:
    """Raises OSError."""
    mode = stat.S_IMODE(key.stat().st_mode)
    if os.name != "posix":
        return not_applicable(f"{name}, permissions", "this system has others")
    wanted = "nobody but the owner and the group can read it, only the owner can write it"
    if mode & 0o027:
        return fault(f"{name}, permissions", f"{mode:04o}", wanted, f"chmod 600 {key}")
    return ok(f"{name}, permissions", f"{mode:04o}", wanted)


def _private_key(path: Path) -> Any:
    """Raises OSError, and ValueError or TypeError for what is no key without a password."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(path.read_bytes(), None)


def _public(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    data: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def _unreadable(name: str, path: Path, error: OSError) -> Check:
    return fault(
        name,
        f"{path} cannot be read: {(error.strerror or str(error)).lower()}",
        "a file that the server's user can read",
        "put it there, or name another file",
    )
