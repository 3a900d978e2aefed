"""What a session has ready for its client, until the client takes it."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from lipwire.session.live.events import Event, Sound
from lipwire.session.live.outputs import Shown
from lipwire.session.live.settings import FRAME_MS

MOST_PICTURES: Final = 5
"""Pictures that wait for the client; further ones are left out before they are composed."""
_MOST_SOUNDS: Final = 50
"""Frames of sound that wait; further ones push out the oldest."""
_MOST_EVENTS: Final = 1000
"""Events that wait; further ones push out the oldest."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A frame of a live session, with its mouth on it. ``frame`` counts from 0, 25 a second.
    ``data`` is a JPEG file or raw pixels, ``height`` x ``width`` x 3, BGR. ``position`` is the
    avatar's frame that it shows; past the avatar's last, positions run back and forth. ``speech``
    is the number of the piece of speech shown, from 1; 0 for none."""

    frame: int
    """On the session's clock, from 0."""
    data: bytes
    """A JPEG file, or raw pixels: height x width x 3, BGR."""
    width: int
    height: int
    position: int
    """Frame of the avatar, before the walk back and forth."""
    speech: int
    """Number of the piece of speech that is being shown; 0 at rest."""

    @property
    def at_ms(self) -> int:
        """When the frame is due, in milliseconds from the start of the session."""
        return self.frame * FRAME_MS


Item = LiveFrame | Sound | Event


class Outbox:
    """An ``Output`` that keeps composed frames, sound and events, in the order in which they left
    the session, until the client takes them (``take``). Thread-safe, and bounded: where the client
    does not take them, further pictures are left out when 5 wait, the oldest sound is dropped when
    more than 50 frames of sound wait, and the oldest item of any kind when more than some 1000
    wait."""

    planes: Final = False

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._items: deque[Item] = deque()
        self._pictures = self._sounds = 0
        self._closed = False
        self.lost_sounds = 0
        """Frames of sound that were pushed out."""

    @property
    def has_room(self) -> bool:
        """Whether a picture would be accepted: whether fewer than five wait."""
        return self._pictures < MOST_PICTURES

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Wait until a picture would be accepted (fewer than five wait) or the outbox is closed, at
        most ``timeout_s`` seconds (None: without limit). Returns whether a picture would be
        accepted; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.has_room, timeout_s)
            return self.has_room and not self._closed

    def put(self, *items: Item) -> None:
        """Add ``items``, frames, sound or events in their order, and wake those who wait in
        ``take``; returns at once. Does nothing once closed. Where more than 50 frames of sound
        wait, the oldest sound and the pictures before it are dropped; where more than some 1000
        items wait, the oldest."""
        with self._changed:
            if self._closed:
                return
            for item in items:
                self._items.append(item)
                self._pictures += isinstance(item, LiveFrame)
                self._sounds += isinstance(item, Sound)
            while self._sounds > _MOST_SOUNDS:
                self._push_out()
            while len(self._items) > _MOST_EVENTS + _MOST_SOUNDS + MOST_PICTURES:
                self._forget(self._items.popleft())
            self._changed.notify_all()

    def show(self, shown: Shown) -> None:
        """Compose ``shown``, in the form that its avatar was opened for (a JPEG file or raw
        pixels), and add it as a ``LiveFrame``. Takes the time of composing. Raises InvalidInput
        where the avatar is closed, AvatarInvalid where its frames were changed."""
        picture, avatar = shown.picture, shown.avatar
        self.put(
            LiveFrame(
                picture.frame,
                shown.data,
                avatar.width,
                avatar.height,
                shown.position,
                picture.speech,
            )
        )

    def take(self, timeout_s: float | None = None) -> list[Item] | None:
        """Wait for frames, sound or events, at most ``timeout_s`` seconds (None: without limit),
        and remove and return all that are there, in order. Returns an empty list where none came in
        that time, and None once the outbox is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items, timeout_s)
            if self._closed and not self._items:
                return None
            items = list(self._items)
            self.clear()
            return items

    def clear(self) -> None:
        """Drop all items that wait, so that there is room for pictures again."""
        with self._changed:
            self._items.clear()
            self._pictures = self._sounds = 0
            self._changed.notify_all()

    def close(self) -> None:
        """Accept nothing more. What waits can still be read with ``take``, which returns None after
        that. Closing twice is allowed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _push_out(self) -> None:
        """Drop the oldest sound, and the pictures before it."""
        kept: deque[Item] = deque()
        while self._items:
            item = self._items.popleft()
            if isinstance(item, Sound):
                self._forget(item)
                self.lost_sounds += 1
                break
            if isinstance(item, LiveFrame):
                self._forget(item)
            else:
                kept.append(item)
        self._items.extendleft(reversed(kept))

    def _forget(self, item: Item) -> None:
        self._pictures -= isinstance(item, LiveFrame)
        self._sounds -= isinstance(item, Sound)
