"""The port on which a server's numbers are read, from its configuration."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lipwire.config.metrics import MetricsSettings
from lipwire.config.securitysettings import SecuritySettings
from lipwire.config.settings import ServerSettings
from lipwire.config.values import is_loopback
from lipwire.domain import Tell, Unavailable
from lipwire.security import OPEN
from lipwire.web.metricsapp import metrics_app
from lipwire.web.server import WebServer
from lipwire.wiring.security import open_access_control, server_tls


@contextmanager
def metrics_port(
    metrics: MetricsSettings,
    server: ServerSettings,
    security: SecuritySettings,
    *,
    read: Callable[[], bytes],
    ready: Callable[[], bool],
    tell: Tell,
) -> Iterator[int]:
    """Answer ``GET /metrics`` with what ``read()`` returns, numbers in Prometheus' text format, and
    ``/healthz``, ``/readyz`` and ``/readyz/balancer`` by what ``ready()`` returns, on the port of
    ``metrics`` during the ``with`` block. The block is given the number of the port; 0 where
    metrics are turned off. A context manager. ``read`` and ``ready`` are called in other threads.

    Where other machines can reach the port, it has the certificate of ``server``, and whoever reads
    numbers has to show a key or token of ``security``. ``tell(heading, facts)`` is called with the
    address, for people. Where the port is taken, another one is used, unless the configuration
    names it: then Unavailable is raised. Raises InvalidInput where a key or a file of the settings
    is not usable.
    """
    if not metrics.enabled:
        yield 0
        return
    outside = not is_loopback(metrics.host)
    tls = server_tls(server.tls) if outside else None

    def listen(port: int) -> WebServer:
        return WebServer(
            lambda: metrics_app(
                read,
                ready=ready,
                hosts=["*"] if outside else [metrics.host],
                control=control,
            ),
            host=metrics.host,
            port=port,
            certificate=None if tls is None else (tls.cert, tls.key),
            name="metrics",
        )

    with open_access_control(security, server) if outside else OPEN as control:
        try:
            listening = listen(metrics.port)
        except Unavailable:
            if "port" in metrics.model_fields_set:
                raise
            listening = listen(0)
        with listening:
            scheme = "http" if tls is None else "https"
            host = f"[{metrics.host}]" if ":" in metrics.host else metrics.host
            facts = {"Prometheus": f"{scheme}://{host}:{listening.port}/metrics"}
            if metrics.port not in (0, listening.port):
                facts["Port"] = f"{metrics.port} is taken by another program (metrics.port: N)"
            tell("Metrics", facts)
            yield listening.port
