"""Spans of requests, recorded where the configuration asks for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from lipwire.config import CompositingConfig, InferenceConfig
from lipwire.domain import DependencyMissing, Tell


@contextmanager
def recording_spans(config: InferenceConfig | CompositingConfig, *, tell: Tell) -> Iterator[None]:
    """Record spans of this process' requests during the ``with`` block, and send them to the
    collector that ``config`` names (``tracing.endpoint``). Does nothing where it names none. A
    context manager. ``tell(heading, facts)`` is called, for people who start the server, where
    spans are recorded. Raises DependencyMissing where OpenTelemetry is not installed."""
    settings = config.tracing
    if settings.endpoint is None:
        yield
        return
    try:
        from lipwire.observe.tracing import SpanRecorder
    except ModuleNotFoundError:
        raise DependencyMissing(
            f"tracing.endpoint is {settings.endpoint}, and OpenTelemetry is not installed: pip"
            " install 'lipwire[otel]', or leave it out"
        ) from None
    inference = isinstance(config, InferenceConfig)
    service = "lipwire-inference" if inference else "lipwire-compositing"
    share = f"{100 * settings.sample_ratio:g} % of the requests"
    tell("Spans for OpenTelemetry", {"Sent to": settings.endpoint, "Recorded": share})
    with SpanRecorder(service, endpoint=settings.endpoint, sample_ratio=settings.sample_ratio):
        yield
