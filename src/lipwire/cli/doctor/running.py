"""A server that runs: whether it answers and is healthy, its version, its avatars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lipwire.cli.doctor.checks import Check, fault, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.config import CompositingConfig
    from lipwire.rpc.credentials import ClientSecurity
    from lipwire.rpc.serverstatus import ServerStatus


def running(address: str, security: ClientSecurity, timeout_s: float) -> Iterator[Check]:
    """Yield checks of the running server at ``address`` (HOST:PORT): whether it answers, and then
    what it reports of its health, version, avatars, GPUs and live sessions. ``security`` says how
    the connection is encrypted and which key is sent. Each of the three or four requests waits at
    most ``timeout_s`` seconds. For a server that does not answer, or refuses, the only check is a
    FAULT."""
    from lipwire.domain import LipwireError
    from lipwire.rpc.serverstatus import StatusConnection

    try:
        with StatusConnection(address, security=security) as connection:
            status = connection.status(timeout_s)
    except LipwireError as error:
        yield fault("answer", str(error), "an answer", "start it, or see --token and --tls-ca")
        return
    yield ok("answer", f"{status.kind}, {status.workers} processes", "an answer")
    yield from findings(status)


def findings(status: ServerStatus) -> Iterator[Check]:
    """Yield checks of what a running server reports about itself in ``status``: health, version,
    avatars, GPUs, live sessions."""
    from lipwire import __version__

    if not status.healthy:
        yield fault("health", status.detail or "not healthy", "healthy", "see the server's log")
    elif status.detail:
        yield warning("health", f"healthy; {status.detail}", "healthy", "see the server's log")
    else:
        yield ok("health", "healthy", "healthy")
    if status.version == __version__:
        yield ok("version", status.version, __version__)
    else:
        yield warning(
            "version", status.version or "not told", f"{__version__}, as here", "update one of them"
        )
    models = f"{status.known} known, {status.loaded} of at most {status.max_models} in memory"
    if status.known:
        yield ok("avatars", models, "one or more")
    else:
        yield fault("avatars", models, "one or more", "copy packages into its models_root")
    if status.failures:
        yield warning(
            "loading", f"{status.failures} avatars could not be loaded", "0",
            "see the server's log; lipwire avatar validate NAME",
        )  # fmt: skip
    for gpu in status.gpus:
        name = f"GPU {gpu.index}"
        if gpu.lost:
            yield fault(name, f"{gpu.name}: {gpu.lost}", "at work", "start the server anew")
        else:
            yield ok(name, f"{gpu.name}, {gpu.utilisation:.0%} at work", "at work")
    if not status.live_capacity:
        yield not_applicable("live sessions", f"{status.live_sessions}; room is not measured yet")
    else:
        seen = f"{status.live_sessions} of {status.live_capacity}"
        if status.live_sessions >= status.live_capacity:
            yield warning("live sessions", seen, "room for more", "add a server")
        else:
            yield ok("live sessions", seen, "room for more")


def inference_servers(config: CompositingConfig, timeout_s: float) -> Iterator[Check]:
    """Yield checks that the inference servers in ``inference_server.url`` of ``config`` answer and
    are healthy, and that there are two or more of them, so that another one takes over where one
    fails. Each call waits at most ``timeout_s`` seconds."""
    from lipwire.domain import LipwireError, PermissionDenied, Unauthenticated
    from lipwire.rpc.serverstatus import StatusConnection
    from lipwire.wiring.security import client_security

    asked = config.inference_server
    for address in asked.url:
        name = f"inference server {address}"
        try:
            with StatusConnection(
                address,
                kind="inference server",
                use_proxy=asked.use_proxy,
                security=client_security(asked),
            ) as connection:
                status = connection.status(timeout_s)
        except Unauthenticated as error:
            yield fault(name, str(error), "a key that it knows", "change inference_server.token")
            continue
        except PermissionDenied as error:
            remedy = "allow it more, or change inference_server.token"
            yield fault(name, str(error), "a key that may infer, read and manage", remedy)
            continue
        except LipwireError as error:
            yield fault(name, str(error), "an answer", "start it, or change inference_server.url")
            continue
        if status.kind != "inference server":
            yield fault(name, f"a {status.kind}", "an inference server", "change the address")
        elif not status.healthy:
            yield fault(name, status.detail or "not healthy", "healthy", "see that server's log")
        else:
            yield ok(name, f"healthy, version {status.version}", "healthy")
    if len(asked.url) == 1:
        yield warning(
            "when an inference server fails", "there is one", "two or more, or a load balancer",
            "name a second in inference_server.url; lipwire bench chaos tries failures",
        )  # fmt: skip
    else:
        yield ok("when an inference server fails", f"{len(asked.url)} are named", "two or more")
