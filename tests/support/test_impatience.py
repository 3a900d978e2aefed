import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import uvicorn.server
from tests.support.impatience import make_impatient


async def _app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nobody asks")


def test_a_server_stops_at_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        make_impatient(patch)

        async def run() -> float:
            config = uvicorn.Config(_app, port=0, lifespan="off", log_config=None)
            server = uvicorn.server.Server(config)
            serving = asyncio.ensure_future(server.serve())
            while not server.started:
                await asyncio.sleep(0.001)
            begun_s = time.perf_counter()
            server.should_exit = True
            await serving
            return time.perf_counter() - begun_s

        # Its own would take 0.1 s before it notices, most times, and 0.1 s always afterwards.
        assert min(asyncio.run(run()) for _ in range(3)) < 0.1


def test_a_server_of_pythons_own_stops_at_once() -> None:
    def stopping_s() -> float:
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            time.sleep(0.02)  # it has begun to wait: it looks before it waits as well
            begun_s = time.perf_counter()
            server.shutdown()
            serving.join()
            return time.perf_counter() - begun_s

    with pytest.MonkeyPatch.context() as patch:
        make_impatient(patch)
        # Its own would take 0.5 s before it notices.
        assert min(stopping_s() for _ in range(3)) < 0.4


def test_all_else_is_asyncios() -> None:
    with pytest.MonkeyPatch.context() as patch:
        make_impatient(patch)
        assert uvicorn.server.asyncio.wait_for is asyncio.wait_for  # type: ignore[attr-defined]
