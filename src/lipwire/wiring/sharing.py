"""The Redis server by which a server shares with others, from its configuration."""

from collections.abc import Iterator
from contextlib import contextmanager

from lipwire.avatars.packages import Packages
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.config.redissettings import RedisSettings
from lipwire.domain import Tell
from lipwire.observe.metrics import ServerMetrics
from lipwire.stores import Notices, RedisAddress, RedisConnection, RedisTls, notice
from lipwire.wiring.measuring import measure_notices, measure_redis


@contextmanager
def open_redis(
    settings: RedisSettings, *, tell: Tell, metrics: ServerMetrics | None = None
) -> Iterator[RedisConnection | None]:
    """Give the ``with`` block a connection to the Redis server of ``settings``, None where they
    name none, and close it afterwards. A context manager. Redis need not be there yet.

    ``tell(heading, facts)`` is called for people who start the server; ``metrics`` shows from then
    on the state of the connection; None where nobody measures. Raises DependencyMissing where
    redis-py is not installed, InvalidInput where a file of the settings cannot be read.
    """
    if not settings.enabled:
        yield None
        return
    address = address_of(settings)
    with RedisConnection(
        address,
        prefix=settings.prefix,
        timeout_s=settings.timeout_ms / 1000,
        retry_s=settings.retry_seconds,
    ) as redis:
        tell(f"Redis {address}", {"Connected": "yes" if redis.up else "not yet"})
        if metrics is not None:
            measure_redis(metrics, redis)
        yield redis


def address_of(settings: RedisSettings) -> RedisAddress:
    """Return host, port and database of the Redis server of ``settings``, which have to name one,
    with the user, the password and the certificates with which a server connects."""
    username, password = settings.credentials
    return RedisAddress(
        settings.host,
        settings.port,
        settings.database,
        username,
        password,
        RedisTls(settings.ca, settings.cert, settings.key) if settings.encrypted else None,
    )


@contextmanager
def hearing_of_versions(
    settings: RedisSettings, catalog: Packages, metrics: ServerMetrics
) -> Iterator[None]:
    """During the ``with`` block, have ``catalog`` look at its store as soon as others who share the
    Redis server of ``settings`` report that something was published. A context manager. Nothing
    happens where ``settings`` name no Redis server, or ``catalog`` is of a folder. ``metrics``
    shows whether the connection for that works."""
    if not settings.enabled or not isinstance(catalog, StoredAvatars):
        yield
        return
    with Notices(
        address_of(settings), _channel(settings), catalog.poll, retry_s=settings.retry_seconds
    ) as notices:
        measure_notices(metrics, notices)
        yield


def tell_of_versions(settings: RedisSettings) -> int:
    """Tell all servers that share the Redis server of ``settings``, which have to name one, to look
    at their stores now. Returns how many processes were told, without waiting for them. Raises
    Unavailable where Redis cannot be reached, DependencyMissing where redis-py is not installed."""
    return notice(address_of(settings), _channel(settings))


def _channel(settings: RedisSettings) -> str:
    return f"{settings.prefix}:published"
