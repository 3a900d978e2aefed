"""The port with a server's numbers, as its configuration says."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lipwire.config import load_compositing_config
from lipwire.domain import Unavailable
from lipwire.rpc.server.ports import held_port
from lipwire.security import KeyFile
from lipwire.security.devcerts import make_certificates
from lipwire.wiring.metricsport import metrics_port

Start = Callable[[str], int]
Told = dict[str, object]


@pytest.fixture
def told() -> Told:
    return {}


@pytest.fixture
def start(tmp_path: Path, told: Told) -> Iterator[Start]:
    """``start(yaml)``: the number of the port of a server with that configuration."""
    with ExitStack() as stack:

        def started(yaml: str) -> int:
            file = tmp_path / "config.yaml"
            file.write_text(f"{yaml}\n")
            config = load_compositing_config(file, {})
            return stack.enter_context(
                metrics_port(
                    config.metrics,
                    config.server,
                    config.security,
                    read=lambda: b"lipwire_x 1\n",
                    ready=lambda: True,
                    tell=lambda heading, facts: told.update(facts),
                )
            )

        yield started


def test_numbers_are_there_unless_they_are_turned_off(start: Start, told: Told) -> None:
    port = start("metrics: {port: 0}")
    assert told["Prometheus"] == f"http://127.0.0.1:{port}/metrics"
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.read() == b"lipwire_x 1\n"
    told.clear()
    assert start("metrics: {port: 0, enabled: false}") == 0
    assert told == {}


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start: Start) -> None:
    with (
        held_port("127.0.0.1", 0) as taken,
        pytest.raises(Unavailable, match=r"choose another one with metrics\.port"),
    ):
        start(f"metrics: {{port: {taken}}}")


def test_the_default_port_may_be_another_one_which_is_told(start: Start, told: Told) -> None:
    first = start("")  # by this test, or another one beside it
    second = start("")
    assert second not in (9464, first)
    assert str(told["Port"]).startswith("9464 is taken by another program")
    assert told["Prometheus"] == f"http://127.0.0.1:{second}/metrics"


def test_what_others_reach_is_encrypted_and_asks_for_a_key(
    start: Start, tmp_path: Path, told: Told
) -> None:
    certs = tmp_path / "certs"
    make_certificates(certs, ["127.0.0.1"], now=datetime.now(UTC))
    reads = KeyFile(tmp_path / "keys.json").create("prometheus", operations=["read"])
    port = start(
        "metrics: {host: 0.0.0.0, port: 0}\n"
        f"server: {{tls: {{cert: {certs}/server.crt, key: {certs}/server.key}}}}\n"
        f"security: {{keys_file: {tmp_path / 'keys.json'}}}"
    )
    assert told["Prometheus"] == f"https://0.0.0.0:{port}/metrics"
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))

    def ask(path: str, token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = Request(f"https://127.0.0.1:{port}{path}", headers=headers)
        try:
            with urlopen(request, context=context) as answer:
                return int(answer.status)
        except HTTPError as refused:
            return int(refused.code)

    assert ask("/metrics") == 401
    assert ask("/metrics", reads) == 200
    assert ask("/readyz") == 200
