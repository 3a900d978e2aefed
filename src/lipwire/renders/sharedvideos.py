"""Finished videos that several servers share: the videos in a store, and in Redis what leads to
them.

Redis has, under a hash of all that a video depends on (``content``), a pointer: the name of the
video in the store, its hash and its size. Beside them it has when all renders of a tenant or of an
avatar were removed last; a pointer that is older leads nowhere. The name of a video in the store
says until when it is kept, and, as hashes, whose it is and of which avatar, so that what has to go
is found there alone::

    renders:video:CONTENT                      the pointer, until the video expires
    renders:removed                            tenants and avatars, by when they were removed
    videos/EXPIRES-TENANT-AVATAR-CONTENT.mp4   in the store

Nobody is led to a video by another tenant's pointer: the tenant is part of the content, and the
name that a pointer gives has to be the tenant's own.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipwire.domain import LipwireError, NotFound
from lipwire.domain.newfiles import storage_errors
from lipwire.renders.job import SUFFIXES, Order, Video
from lipwire.renders.removals import Removal
from lipwire.stores import RedisConnection, Script, StoreAway, digest
from lipwire.stores.objects import CHUNK_BYTES, ObjectStore

_FOLDER: Final = "videos"
_NAME: Final = re.compile(r"(\d{12})-([0-9a-f]{32})-([0-9a-f]{32})-([0-9a-f]{32})(\.mp4|\.m4s)")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST_POINTER_BYTES: Final = 1 << 20
"""A pointer has the playlist of an HLS video, some 60 bytes for each six seconds."""
_MOST_REMOVED: Final = 10_000

_FIND: Final = Script(
    """
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1]),
  redis.call('ZSCORE', KEYS[2], ARGV[2]) or '', redis.call('ZSCORE', KEYS[2], ARGV[3]) or ''}
"""
)
"""Keys: the pointer, and what was removed. Arguments: the number of the pointer's last byte that is
read, and how tenant and avatar are called in what was removed. Returns the pointer, empty where
there is none, and when these two were removed, empty where they were not."""

_REMOVED: Final = Script(
    f"""
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -{_MOST_REMOVED + 1})
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""
)
"""Keys: what was removed. Arguments: who, when, before when nothing is of interest any more, and
for how many seconds the key is kept."""

_DROP: Final = Script(
    """
local kept = redis.call('GET', KEYS[1])
if kept and string.find(kept, ARGV[1], 1, true) then redis.call('DEL', KEYS[1]) end
return 1
"""
)
"""Keys: a pointer. Arguments: the name of a video; the pointer goes where it leads to that."""


@dataclass(frozen=True, slots=True)
class SharedVideo:
    """A video in the store that servers share: its ``name`` there (see ``SharedVideos``), its hash
    and size (``video``), and how many ``frames`` it has."""

    name: str
    video: Video
    frames: int


class SharedVideos:
    """The videos that servers share. The files are in a store; Redis has a pointer to each, by
    which it is found. Thread-safe. Methods wait for the answers of both. Those that ask Redis raise
    StoreAway where it does not answer, and those that ask the store raise Unavailable.

    A video is looked for by its *content*: 32 hexadecimal digits, a hash of all that it depends on,
    the tenant included. Its *name* in the store says when it expires, and has hashes of its tenant,
    avatar and content.
    """

    def __init__(
        self,
        redis: RedisConnection,
        store: ObjectStore,
        *,
        retention_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``redis`` stays the caller's to close. Videos are kept in ``store`` for ``retention_s``
        seconds. ``now()`` gives seconds since 1970."""
        self._redis = redis
        self._store = store
        self._retention_s = retention_s
        self._now = now
        self._seen: dict[str, float] = {}
        """What ``removed_elsewhere`` has told of, and when that was removed."""

    def find(self, content: str, order: Order) -> SharedVideo | None:
        """Return the video that has ``content``, 32 hexadecimal digits, and is of the tenant and
        avatar and in the format of ``order``. None where there is none, or all renders of the
        tenant or avatar were removed since the video was ordered. Asks Redis alone: the file may be
        missing in the store. Raises StoreAway where Redis does not answer."""
        kept, *removed = self._redis.script(
            _FIND,
            [self._key(content), self._redis.key("renders", "removed")],
            [_LARGEST_POINTER_BYTES - 1, f"tenant:{digest(order.tenant)}", _of_avatar(order)],
        )
        if not kept:
            return None
        found = _pointer(kept, content, order)
        if found is None:
            return None
        shared, made_s = found
        return shared if all(made_s > float(at or "-inf") for at in removed) else None

    def put(self, content: str, order: Order, path: Path, video: Video) -> str:
        """Copy the file ``path``, which is the finished ``video`` of ``order`` with this
        ``content`` (32 hexadecimal digits), into the store, and return its name there. The video
        cannot be found before ``point`` is called. Raises NotFound where the file is not there any
        more, and Unavailable where the store does not answer."""
        expires_s = int(self._now() + self._retention_s)
        owners = f"{digest(order.tenant)}-{digest(order.avatar)}"
        name = f"{expires_s:012d}-{owners}-{content}{SUFFIXES[order.format]}"
        self._store.upload(f"{_FOLDER}/{name}", path)
        return name

    def point(self, shared: SharedVideo, ordered_s: float) -> None:
        """Have ``shared``, a video of the store, be found by ``find`` until it expires.
        ``ordered_s`` is when it was ordered, in seconds since 1970. Does nothing where the video
        has expired, or its pointer would be larger than 1 MiB. Raises StoreAway where Redis does
        not answer, and ValueError where its name is not that of a shared video."""
        expires, *_, content, _ = _parts(shared.name)
        text = json.dumps(
            {
                "name": shared.name,
                "ordered_s": ordered_s,
                "sha256": shared.video.sha256,
                "bytes": shared.video.size_bytes,
                "playlist": shared.video.playlist,
                "frames": shared.frames,
            }
        )
        left_ms = round(1000 * (float(expires) - self._now()))
        if len(text) <= _LARGEST_POINTER_BYTES and left_ms > 0:
            self._redis.run("SET", self._key(content), text.encode(), "PX", left_ms)

    def take(self, shared: SharedVideo, target: Path) -> None:
        """Download ``shared``, a video of the store, to the new file ``target``. Raises NotFound
        where it is not in the store any more, or its content does not have the hash of ``shared``,
        StorageFailed where the disk is full or ``target`` exists, and Unavailable where the store
        does not answer. After an error the caller has to remove what was written."""
        hashed, at, size = hashlib.sha256(), 0, shared.video.size_bytes
        with storage_errors(target), target.open("xb") as file:
            while at < size:
                end = min(size, at + CHUNK_BYTES)
                piece = self._store.read_range(f"{_FOLDER}/{shared.name}", at, end)
                if not piece:
                    break
                file.write(piece)
                hashed.update(piece)
                at += len(piece)
        if hashed.hexdigest() != shared.video.sha256:
            raise NotFound(f"{shared.name} in the store is not what was put there")

    def hide(self, removal: Removal) -> None:
        """Have ``find``, on all servers, no longer return the videos that ``removal`` names, from
        now on; the files stay in the store. Raises StoreAway where Redis does not answer, and
        ValueError where ``removal`` is of a video and its name is not that of a shared video."""
        if removal.kind == "video":
            content = _parts(removal.name)[3]
            self._redis.script(_DROP, [self._key(content)], [removal.name])
            return
        name = f"{removal.kind}:{digest(removal.name)}"
        kept_s = round(self._retention_s) + 1
        self._redis.script(
            _REMOVED,
            [self._redis.key("renders", "removed")],
            [name, str(removal.at_s), str(self._now() - kept_s), kept_s],
        )

    def remove(self, removal: Removal) -> None:
        """Remove the files of the videos that ``removal`` names from the store. Does nothing where
        they are gone already. Raises Unavailable where the store does not answer."""
        if removal.kind == "video":
            self._store.remove(f"{_FOLDER}/{removal.name}")
            return
        at, wanted = (1 if removal.kind == "tenant" else 2), digest(removal.name)
        for name in self._names():
            if _parts(name)[at] == wanted:
                self._store.remove(f"{_FOLDER}/{name}")

    def remove_expired(self) -> int:
        """Remove the videos that have expired from the store, whichever server put them there, and
        return how many there were. Raises Unavailable where the store does not answer."""
        over = [name for name in self._names() if int(_parts(name)[0]) < self._now()]
        for name in over:
            self._store.remove(f"{_FOLDER}/{name}")
        return len(over)

    def removed_elsewhere(self) -> Mapping[str, float]:
        """Return of which tenants and avatars all renders were removed, by this server or another
        one, since this was last called. Keys are "tenant:" or "avatar:" and the first 32
        hexadecimal digits of the SHA-256 of the name (``lipwire.stores.digest``); values are times
        in seconds since 1970: renders ordered before them were removed.
        Raises StoreAway where Redis does not answer."""
        key = self._redis.key("renders", "removed")
        told = self._redis.run("ZRANGE", key, 0, -1, "WITHSCORES")
        found = {
            bytes(name).decode("ascii", "replace"): float(at_s)
            for name, at_s in zip(told[::2], told[1::2], strict=True)
        }
        new = {name: at_s for name, at_s in found.items() if self._seen.get(name) != at_s}
        self._seen = found
        return new

    def _key(self, content: str) -> str:
        return self._redis.key("renders", "video", content)

    def _names(self) -> list[str]:
        return [one.name for one in self._store.listed(_FOLDER) if _NAME.fullmatch(one.name)]


def _of_avatar(order: Order) -> str:
    return f"avatar:{digest(order.avatar)}"


def _parts(name: str) -> tuple[str, str, str, str, str]:
    """When the video ``name`` expires, whose it is, of which avatar, its content and what its name
    ends in. Raises ValueError where it is no such name."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name[:100]} is no name of a shared video")
    expires, tenant, avatar, content, suffix = found.groups()
    return expires, tenant, avatar, content, suffix


def _pointer(text: bytes, content: str, order: Order) -> tuple[SharedVideo, float] | None:
    """What a pointer leads to, and when that was ordered; None where Lipwire did not write it for
    such an order."""
    with suppress(ValueError, KeyError, TypeError):
        kept: dict[str, Any] = json.loads(text)
        video = Video(str(kept["sha256"]), int(kept["bytes"]), str(kept["playlist"]))
        shared = SharedVideo(str(kept["name"]), video, int(kept["frames"]))
        own = digest(order.tenant), digest(order.avatar), content, SUFFIXES[order.format]
        sound = _SHA256.fullmatch(video.sha256) and video.size_bytes > 0 and shared.frames > 0
        if sound and _parts(shared.name)[1:] == own:
            return shared, float(kept["ordered_s"])
    return None


AWAY: Final = (StoreAway, LipwireError)
"""What is raised where Redis or the store does not answer, or not as it should."""
