"""Live sessions of several compositing servers over the same inference servers: each a process, so
that what is right of all of them together is decided where all ask."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.cli.conftest import Served, serving_in
from tests.support.waiting import until

from lipwire.domain import Overloaded
from lipwire.rpc.conversing import AvatarConnection, ConverseStream

pytestmark = pytest.mark.slow
LASTS_S = 6.0
PROGRAM = (
    "-c",
    "import lipwire.serving.leases as leases\n"
    f"leases.LEASE_S = {LASTS_S}\n"
    "from lipwire.serving import LocalBackend\n"
    # Of each inference server the one session fits that always does.
    "LocalBackend.__init__.__kwdefaults__['live_share'] = 1e-6\n"
    "from lipwire.cli.main import main\n"
    "main()",
)


class Cluster:
    """Two inference servers, for one session each, and two compositing servers over both."""

    def __init__(self, stack: ExitStack, folder: Path, models_root: Path) -> None:
        start = serving_in(stack, folder, PROGRAM)
        self._stack = stack
        root = ("--models-root", models_root)
        inference = [
            start("inference-server", "--host", "127.0.0.1", "--port", 0, *root) for _ in range(2)
        ]
        ports = [one.wait_for(r"[Ii]nference server listening on port (\d+)") for one in inference]
        urls = ",".join(f"127.0.0.1:{port}" for port in ports)
        here = {
            "LIPWIRE_SERVER__HOST": "127.0.0.1",
            "LIPWIRE_SERVER__PORT": "0",
            "LIPWIRE_WEB__ENABLED": "false",
            "LIPWIRE_SPEECH__VOICE": "none",
            "LIPWIRE_INFERENCE_SERVER__URL": urls,
            "LIPWIRE_INFERENCE_SERVER__REPLICAS": "2",
        }
        self.servers = [start("compositing-server", *root, **here) for _ in range(2)]
        self.clients = {
            id(server): stack.enter_context(AvatarConnection(server.address))
            for server in self.servers
        }

    def open(self, server: Served) -> ConverseStream:
        return self._stack.enter_context(closing(self.clients[id(server)].converse("sanders")))

    def fits(self, server: Served) -> bool:
        """Whether one more session is let in there; it ends at once."""
        try:
            self.clients[id(server)].converse("sanders").close()
        except Overloaded as error:
            if "1 fit" not in str(error):
                raise
            return False
        return True


@pytest.fixture
def cluster(tmp_path: Path, models_root: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, tmp_path, models_root)


def test_what_fits_is_let_in_wherever_it_comes_and_one_more_nowhere(cluster: Cluster) -> None:
    one, two = cluster.servers
    first = cluster.open(one)
    second = cluster.open(two)  # there is no room where it is asked first
    assert not cluster.fits(one)
    assert not cluster.fits(two)
    first.close()
    until(lambda: cluster.fits(two))
    until(lambda: cluster.fits(one))
    second.close()


def test_what_a_killed_server_held_is_free_within_the_time_of_a_lease(cluster: Cluster) -> None:
    one, two = cluster.servers
    cluster.open(one)
    kept = cluster.open(two)
    one.process.kill()
    one.process.wait()
    assert not cluster.fits(two)
    until(lambda: cluster.fits(two), timeout_s=LASTS_S + 30)
    cluster.open(two)
    assert not cluster.fits(two)
    assert next(iter(kept)) is not None, "which has been renewed"
