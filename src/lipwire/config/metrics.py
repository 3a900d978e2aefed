"""The sections ``metrics`` and ``tracing`` of both servers' files: the port on which Prometheus
reads numbers, and where spans of requests are sent."""

from typing import Annotated

from pydantic import Field

from lipwire.config.section import Section
from lipwire.config.values import Host, HttpUrl, PortNumber


class MetricsSettings(Section):
    """The section ``metrics`` of a compositing server's file: whether (``enabled``) and where
    (``host``, ``port``) the server answers ``GET /metrics`` with numbers for Prometheus, and
    ``/healthz`` and ``/readyz`` for whoever watches over it."""

    enabled: bool = True
    """Whether numbers can be read."""
    host: Host = "127.0.0.1"
    """The address to listen on. Others than this machine need `server.tls` and `security`, or
    `server.insecure`, as `server.host` does; whoever reads the numbers then shows a key or token
    that may `read`."""
    port: PortNumber = 9464
    """The port to listen on; 0 is any free one."""


class InferenceMetricsSettings(MetricsSettings):
    """The section ``metrics`` of an inference server's file, with its own port. The keys are those
    of ``MetricsSettings``."""

    port: PortNumber = 9465
    """The port to listen on; 0 is any free one."""


class TracingSettings(Section):
    """The section ``tracing`` of both servers' files: where OpenTelemetry's spans of requests are
    sent (``endpoint``, a URL; None: nowhere), and which share of the requests has some
    (``sample_ratio``, 0 to 1)."""

    endpoint: HttpUrl | None = None
    """The URL of an OpenTelemetry collector that takes OTLP over HTTP, as `http://127.0.0.1:4318`;
    null: nothing is recorded. Needs `lipwire[otel]`. Headers that the collector asks for are taken
    from the environment's `OTEL_EXPORTER_OTLP_HEADERS`."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Of how many requests spans are recorded, 0 to 1; a caller's `traceparent` that says whether
    it is to be recorded is obeyed."""
