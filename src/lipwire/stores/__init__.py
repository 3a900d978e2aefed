"""What several servers share outside of themselves: a Redis server."""

from lipwire.stores.notices import Notices, notice
from lipwire.stores.redisconnection import (
    RedisAddress,
    RedisConnection,
    RedisStats,
    RedisTls,
    Script,
    StoreAway,
    StoreDamaged,
    digest,
)

__all__ = [
    "Notices",
    "RedisAddress",
    "RedisConnection",
    "RedisStats",
    "RedisTls",
    "Script",
    "StoreAway",
    "StoreDamaged",
    "digest",
    "notice",
]
