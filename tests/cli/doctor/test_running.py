from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lipwire import __version__
from lipwire.cli.doctor.checks import Outcome
from lipwire.cli.doctor.running import findings, inference_servers, running
from lipwire.config import CompositingConfig
from lipwire.config.compositing import InferenceAddressSettings
from lipwire.domain import LipwireError, PermissionDenied, Unauthenticated
from lipwire.rpc.credentials import PLAIN
from lipwire.rpc.serverstatus import GpuUse, ServerStatus, StatusConnection

if TYPE_CHECKING:
    from tests.cli.conftest import Served

NOBODY = "127.0.0.1:9"
WAIT_S = 300.0

WELL = ServerStatus(
    address="localhost:50052",
    kind="compositing server",
    version=__version__,
    healthy=True,
    detail="",
    workers=1,
    known=3,
    loaded=1,
    max_models=11_000,
    memory_bytes=1_000_000,
    live_sessions=1,
    live_capacity=4,
    models=(),
    gpus=(),
    hits=1,
    misses=1,
    evictions=0,
    failures=0,
)
LOST = GpuUse("RTX 4090", 1, 0, 24, 12, 0.5, "it has gone")


def outcomes(status: ServerStatus) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in findings(status)}


def test_a_server_that_is_well_is_ok() -> None:
    assert outcomes(WELL) == dict.fromkeys(
        ("health", "version", "avatars", "live sessions"), Outcome.OK
    )


@pytest.mark.parametrize(
    ("status", "name", "outcome"),
    [
        (replace(WELL, healthy=False, detail="no inference"), "health", Outcome.FAULT),
        (replace(WELL, detail="worker 1 is not there"), "health", Outcome.WARNING),
        (replace(WELL, version="0.0.1"), "version", Outcome.WARNING),
        (replace(WELL, known=0), "avatars", Outcome.FAULT),
        (replace(WELL, failures=2), "loading", Outcome.WARNING),
        (replace(WELL, gpus=(LOST,)), "GPU 1", Outcome.FAULT),
        (replace(WELL, gpus=(replace(LOST, lost=""),)), "GPU 1", Outcome.OK),
        (replace(WELL, live_sessions=4), "live sessions", Outcome.WARNING),
        (replace(WELL, live_capacity=0), "live sessions", Outcome.NOT_APPLICABLE),
    ],
)
def test_what_a_server_tells_is_judged(status: ServerStatus, name: str, outcome: Outcome) -> None:
    assert outcomes(status)[name] is outcome


def test_a_server_that_does_not_answer_is_a_fault() -> None:
    (check,) = running(NOBODY, PLAIN, 5.0)
    assert (check.name, check.outcome) == ("answer", Outcome.FAULT)
    assert NOBODY in check.seen


def test_inference_servers_that_do_not_answer_are_faults() -> None:
    config = CompositingConfig(
        inference_server=InferenceAddressSettings(url=(NOBODY, "127.0.0.1:19"))
    )
    checks = list(inference_servers(config, 5.0))
    assert f"the inference server at {NOBODY} cannot be asked" in checks[0].seen
    assert {check.name: check.outcome for check in checks} == {
        f"inference server {NOBODY}": Outcome.FAULT,
        "inference server 127.0.0.1:19": Outcome.FAULT,
        "when an inference server fails": Outcome.OK,
    }


@pytest.mark.parametrize("error", [Unauthenticated("not known"), PermissionDenied("may not read")])
def test_an_inference_server_that_refuses_the_token_leads_to_the_token(
    error: LipwireError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(StatusConnection, "status", refuse)
    config = CompositingConfig(inference_server=InferenceAddressSettings(url=(NOBODY,)))
    check = next(iter(inference_servers(config, 5.0)))
    assert (check.outcome, check.seen) == (Outcome.FAULT, str(error))
    assert "change inference_server.token" in check.action


@pytest.mark.slow
def test_a_server_of_the_other_kind_is_no_inference_server(one: Served) -> None:
    config = CompositingConfig(inference_server=InferenceAddressSettings(url=(one.address,)))
    first, second = inference_servers(config, WAIT_S)
    assert (first.outcome, first.seen) == (Outcome.FAULT, "a compositing server")
    assert second.outcome is Outcome.WARNING
