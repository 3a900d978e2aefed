"""What happens to a cluster: each trouble has a beginning and an end."""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.support.cluster.cluster import COMPOSITING, INFERENCE, NAME, Cluster

_CONNECTED_S: Final = 2.0


def _nothing() -> None:
    pass


def _at_once() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that happens to a cluster, called ``kind``: ``begin`` has it happen, ``end`` ends
    it, and after that ``is_over`` says whether nothing is left of it. ``where`` says whom it
    happens to."""

    kind: str
    where: str
    begin: Callable[[], object]
    end: Callable[[], object] = _nothing
    is_over: Callable[[], bool] = _at_once


def a_round(cluster: Cluster, chance: Random) -> list[Trouble]:
    """Return every kind of trouble once for each kind of server, in an order and at servers drawn
    from ``chance``; and nothing, to compare with."""
    found = [
        nothing(),
        *(
            make(cluster, chance.choice(names))
            for make in _ONE
            for names in (INFERENCE, COMPOSITING)
        ),
        _store_hangs(cluster),
        _cut_store(cluster),
        _redis_is_killed(cluster),
        _redis_hangs(cluster),
        _certificate(cluster),
    ]
    chance.shuffle(found)
    return found


def nothing() -> Trouble:
    """Return none: what clients see of it is what the machine makes them wait for."""
    return Trouble("nothing", "", _nothing)


def _kind(name: str) -> str:
    return name.rpartition("-")[0]


def _killed(cluster: Cluster, name: str) -> Trouble:
    server = cluster.servers[name]
    return Trouble(f"kill -9, {_kind(name)}", name, server.kill, server.start_again)


def _stopped(cluster: Cluster, name: str) -> Trouble:
    server = cluster.servers[name]
    return Trouble(f"SIGSTOP, {_kind(name)}", name, server.stop, server.go_on)


def _cut(cluster: Cluster, name: str) -> Trouble:
    host = cluster.hosts[name]
    return Trouble(f"network cut, {_kind(name)}", name, host.cut, host.mend)


def _filled(cluster: Cluster, name: str) -> Trouble:
    host = cluster.hosts[name]
    return Trouble(f"disk full, {_kind(name)}", name, host.fill, host.empty)


_ONE: Final[Sequence[Callable[[Cluster, str], Trouble]]] = (_killed, _stopped, _cut, _filled)


def _store_hangs(cluster: Cluster) -> Trouble:
    return Trouble("store hangs", "store", cluster.store.stop, cluster.store.go_on)


def _cut_store(cluster: Cluster) -> Trouble:
    host = cluster.store_host
    return Trouble("store cut off", "store", host.cut, host.mend)


def _redis_is_killed(cluster: Cluster) -> Trouble:
    return Trouble("Redis killed", "redis", cluster.redis.kill, cluster.redis.start)


def _redis_hangs(cluster: Cluster) -> Trouble:
    return Trouble("Redis hangs", "redis", cluster.redis.stop, cluster.redis.go_on)


def _certificate(cluster: Cluster) -> Trouble:
    wanted: list[bytes] = []

    def begin() -> None:
        path = cluster.change_certificate()
        wanted.append(ssl.PEM_cert_to_DER_cert(path.read_text()))
        cluster.proxy.reload()

    def is_over() -> bool:
        return all(_shown(*port) == wanted[0] for port in cluster.ports().values())

    return Trouble("certificate changed", "all", begin, is_over=is_over)


def _shown(host: str, port: int) -> bytes | None:
    """The certificate that a new connection to a port is shown; None where there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((host, port), _CONNECTED_S) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True)
    except OSError:
        return None
