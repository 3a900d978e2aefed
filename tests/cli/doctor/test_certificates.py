from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from lipwire.cli.doctor.certificates import certificates
from lipwire.cli.doctor.checks import Outcome
from lipwire.config import CompositingConfig, InferenceConfig
from lipwire.config.compositing import ClientTlsSettings, InferenceAddressSettings
from lipwire.config.inference import InferenceServerSettings
from lipwire.config.settings import TlsSettings
from lipwire.security.devcerts import make_certificates

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, ["localhost"], now=NOW)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "certificates")


def outcomes(folder: Path, now: datetime.datetime = NOW) -> dict[str, Outcome]:
    """Outcomes of the checks of an inference server whose files are in ``folder``, by name."""
    tls = TlsSettings(
        cert=folder / "server.crt", key=folder / "server.key", client_ca=folder / "ca.crt"
    )
    config = InferenceConfig(server=InferenceServerSettings(tls=tls))
    checks = list(certificates(config, now))
    assert all(check.action for check in checks if check.outcome is not Outcome.OK)
    return {check.name: check.outcome for check in checks}


def test_sound_files_are_ok(folder: Path) -> None:
    assert set(outcomes(folder).values()) == {Outcome.OK}
    assert len(outcomes(folder)) == 3


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (-2 * DAY, Outcome.FAULT),
        (380 * DAY, Outcome.OK),
        (390 * DAY, Outcome.WARNING),
        (398 * DAY, Outcome.FAULT),
    ],
)
def test_certificates_count_for_a_time(
    folder: Path, after: datetime.timedelta, outcome: Outcome
) -> None:
    found = outcomes(folder, NOW + after)
    assert found["server.tls.cert"] is outcome
    assert found["server.tls.client_ca"] is outcome


def overwrite_certificate(folder: Path) -> None:
    (folder / "server.crt").write_text("nothing")


def remove_certificate(folder: Path) -> None:
    (folder / "server.crt").unlink()


def remove_key(folder: Path) -> None:
    (folder / "server.key").unlink()


def take_another_key(folder: Path) -> None:
    shutil.copy(folder / "client.key", folder / "server.key")


def lock_key(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = BestAvailableEncryption(b"secret")
    (folder / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    )


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (overwrite_certificate, "server.tls.cert"),
        (remove_certificate, "server.tls.cert"),
        (remove_key, "server.tls.key"),
        (take_another_key, "server.tls.key"),
        (lock_key, "server.tls.key"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault(
    folder: Path, spoil: Callable[[Path], None], name: str
) -> None:
    spoil(folder)
    assert outcomes(folder)[name] is Outcome.FAULT


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        (0o600, Outcome.OK),
        (0o640, Outcome.OK),
        (0o644, Outcome.FAULT),
        (0o660, Outcome.FAULT),
        (0o602, Outcome.FAULT),
    ],
)
def test_nobody_else_may_read_a_private_key(folder: Path, mode: int, outcome: Outcome) -> None:
    (folder / "server.key").chmod(mode)
    assert outcomes(folder)["server.tls.key, permissions"] is outcome


def test_what_is_shown_to_inference_servers_is_looked_at(folder: Path) -> None:
    tls = ClientTlsSettings(
        ca=folder / "gone.crt", cert=folder / "client.crt", key=folder / "client.key"
    )
    config = CompositingConfig(inference_server=InferenceAddressSettings(tls=tls))
    found = {check.name: check.outcome for check in certificates(config, NOW)}
    assert found["inference_server.tls.cert"] is Outcome.OK
    assert found["inference_server.tls.ca"] is Outcome.FAULT


def test_without_files_there_is_nothing_to_look_at() -> None:
    (check,) = certificates(InferenceConfig(), NOW)
    assert check.outcome is Outcome.NOT_APPLICABLE
