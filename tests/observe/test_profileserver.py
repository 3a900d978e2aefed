from __future__ import annotations

import http.client
import re
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Unavailable
from lipwire.observe import sampling
from lipwire.observe.profileserver import ProfileServer

ANSWERING = ", in process_request_thread"
"""In the stack of a thread that answers a request."""


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def port() -> Iterator[int]:
    with ProfileServer(0) as server:
        yield server.port


@contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=run, name="lipwire-busy")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def spend_time() -> int:
    return sum(range(10_000))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cpu", "wall"])
def test_a_profile_is_folded_stacks_of_what_works(port: int, mode: str) -> None:
    with busy(spend_time):
        answers: list[tuple[int, str]] = []

        def profiled() -> bool:
            answers.append(get(port, f"/debug/pprof/profile?seconds=1&mode={mode}"))
            return "spend_time" in answers[-1][1]

        until(profiled)
    status, text = answers[-1]
    assert status == 200
    for line in text.splitlines():
        assert re.fullmatch(r"[^;]+(;[^;]+)* [1-9][0-9]*", line)
    assert re.search(r"^lipwire-busy;.*\bspend_time:\d+", text, re.MULTILINE)


@pytest.mark.slow
def test_the_heap_is_what_was_allocated_meanwhile(port: int) -> None:
    held: list[bytes] = []
    with busy(lambda: held.append(b"x" * 1000) if len(held) < 100_000 else None):
        status, text = get(port, "/debug/pprof/heap?seconds=1")
    assert status == 200
    assert text.startswith("allocated by Python within 1 s and still held: ")
    assert "without memory of libraries" in text
    assert not tracemalloc.is_tracing()


def test_what_is_counted_already_is_told_at_once(port: int) -> None:
    tracemalloc.start()
    try:
        held = [bytes(1000) for _ in range(1000)]
        status, text = get(port, "/debug/pprof/heap?seconds=600")
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert len(held) == 1000
    assert status == 200
    assert "since tracemalloc was turned on" in text
    assert "test_profileserver.py" in text


def test_threads_have_their_stacks(port: int) -> None:
    status, text = get(port, "/debug/pprof/threads")
    assert status == 200
    assert "test_threads_have_their_stacks" in text
    assert re.search(r"^lipwire-profiles \(\d+\):$", text, re.MULTILINE)


@pytest.mark.parametrize("path", ["/", "/debug/pprof", "/debug/pprof/"])
def test_the_index_says_what_there_is(port: int, path: str) -> None:
    status, text = get(port, path)
    assert status == 200
    for name in ("profile?seconds=30", "heap?seconds=30", "threads"):
        assert f"/debug/pprof/{name}\n" in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/debug/pprof/goroutine", 404),
        ("/../etc/passwd", 404),
        ("/debug/pprof/profile?seconds=0", 400),
        ("/debug/pprof/profile?seconds=nan", 400),
        ("/debug/pprof/profile?seconds=601", 400),
        ("/debug/pprof/heap?seconds=a", 400),
        ("/debug/pprof/profile?mode=gpu", 400),
        ("/debug/pprof/profile?" + "&".join(f"a{n}=1" for n in range(20)), 400),
    ],
)
def test_what_there_is_not_is_refused(port: int, path: str, status: int) -> None:
    seen, text = get(port, path)
    assert seen == status
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:6060", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:6060", 200),
        ("rebound.example.org:6060", 403),
        ("localhost.example.org", 403),
        ("[::1", 400),
    ],
)
def test_a_page_with_a_name_of_its_own_is_refused(port: int, host: str, status: int) -> None:
    assert get(port, "/debug/pprof/", Host=host)[0] == status


def begun(function: str) -> bool:
    """Whether a thread is in ``function``."""
    return f", in {function}\n" in sampling.stacks()


@pytest.mark.parametrize("path", ["profile", "heap"])
def test_one_is_made_at_a_time_and_ends_with_the_server(path: str) -> None:
    with ProfileServer(0) as server:
        found: list[tuple[int, str]] = []
        first = threading.Thread(
            target=lambda: found.append(get(server.port, f"/debug/pprof/{path}?seconds=600"))
        )
        first.start()
        until(lambda: begun(path))
        status, text = get(server.port, f"/debug/pprof/{path}?seconds=1")
        assert (status, text) == (429, f"a {path} is being made; one is made at a time\n")
        assert get(server.port, "/debug/pprof/threads")[0] == 200
    first.join(WAIT_S)
    assert found[0][0] == 200
    assert not tracemalloc.is_tracing()


@pytest.mark.slow
def test_a_ninth_request_is_let_go(port: int) -> None:
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    try:
        until(lambda: sampling.stacks().count(ANSWERING) >= 8)
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as ninth:
            assert ninth.recv(1) == b""
    finally:
        for each in waiting:
            each.close()
    until(lambda: ANSWERING not in sampling.stacks())
    assert get(port, "/")[0] == 200


def test_a_port_that_is_taken_is_named() -> None:
    with ProfileServer(0) as server, pytest.raises(Unavailable, match=r"server\.profile_port"):
        ProfileServer(server.port)


def test_other_machines_cannot_ask(port: int) -> None:
    with ProfileServer(0) as server:
        assert server._server.server_address[0] == "127.0.0.1"
