"""One encoder for all viewers of a session.

Sound leaves first, when its picture begins to be composed: a viewer that hears it at even
distances needs a shorter buffer. Time stamps say which picture it belongs to.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from lipwire.compose.livevideo import (
    LOWEST_BITS_A_SECOND,
    OPUS_RATE_HZ,
    EncodedPicture,
    EncodedSound,
    LiveSoundEncoder,
    LiveVideoEncoder,
    usual_bits_a_second,
)
from lipwire.domain import FPS, UInt8Array
from lipwire.session.live.events import Event, Sound
from lipwire.session.live.outputs import Shown
from lipwire.session.live.viewerrate import ViewerRate

Media = EncodedPicture | EncodedSound | Event
Viewer = Callable[[tuple[Media, ...]], None]
"""Takes what leaves at one moment, in any thread, and does not wait."""

_KEY_EVERY_S: Final = 1.0
"""Key frames are made on demand, at most so often: each takes the bits of several others."""
_KEPT_FRAMES: Final = 30
"""Frames since the last key frame that a new viewer is given, instead of having one made."""
_RATE_EVERY_S: Final = 5.0
"""The bit rate changes at most so often, as the encoder begins anew."""
_SENT_S: Final = 2.0
"""What is sent is measured over the last so many seconds."""
_LEAST_OF_USUAL: Final = 0.2
"""Less than so much of the bit rate that suits the frames' size shows nobody anything."""
_RATE_CHANGES: Final = 0.15
"""A change of the bit rate by less is not worth that."""


class Broadcast:
    """An ``Output`` that encodes a session's video (H.264) and sound (Opus) once, and gives what it
    has encoded to any number of viewers. What it is given while nobody views is not encoded.
    Viewers may be added and removed in any thread.

    A viewer is a function that takes a tuple of ``EncodedPicture``, ``EncodedSound`` and events, in
    the order in which they leave. It is called in any thread, and must neither wait nor raise.
    """

    planes: Final = True

    def __init__(
        self,
        *,
        bits_a_second: int | None = None,
        on_close: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``bits_a_second`` is the most that video takes; None: what suits the frames' size.
        ``on_close()`` is called, in any thread, when nothing follows: the session has ended, or the
        output was removed from it. ``clock`` gives seconds."""
        self._on_close = on_close
        self._most_bits = bits_a_second
        self._clock = clock
        self._lock = threading.Lock()
        self._viewers: dict[Viewer, ViewerRate] = {}
        self._waiting: tuple[Sound | Event, ...] = ()
        self._video: LiveVideoEncoder | None = None
        self._sound = LiveSoundEncoder()
        self._sound_lock = threading.Lock()
        self._planes: UInt8Array | None = None
        self._kept: deque[EncodedPicture] = deque()
        self._sent: deque[tuple[float, int]] = deque()  # when, and bits
        self._key_wanted = True
        self._key_s = self._rate_s = float("-inf")
        self._closed = False
        self.encoded = 0
        """Pictures that were encoded."""

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called: no viewer is added and nothing encoded any more."""
        return self._closed

    @property
    def viewers(self) -> int:
        """How many viewers there are."""
        return len(self._viewers)

    @property
    def has_room(self) -> bool:
        """Whether pictures are to be composed and given to ``show``: whether there is a viewer."""
        return bool(self._viewers)

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Return True at once, whatever ``timeout_s`` is: nothing waits for viewers; what a viewer
        does not accept in time is lost to it."""
        return True

    def add(self, viewer: Viewer) -> None:
        """Call ``viewer`` with what leaves from now on. Where the last key frame is one of the
        latest 30 pictures, ``viewer`` is called at once, in this thread, with that key frame and
        the pictures after it; else the next picture is made a key frame for it. Does nothing once
        closed."""
        with self._lock:
            if self._closed:
                return
            self._viewers[viewer] = ViewerRate()
            kept = tuple(self._kept)
            if not kept or len(kept) > _KEPT_FRAMES:
                self._key_wanted = True
            elif kept:
                viewer(kept)  # under the lock: before the next picture, and that once

    def remove(self, viewer: Viewer) -> None:
        """Stop calling ``viewer``. Does nothing where it was not added, or was removed already."""
        with self._lock:
            self._viewers.pop(viewer, None)
            if not self._viewers:
                self._kept.clear()
                self._key_wanted = True

    def want_key(self) -> None:
        """Have the next picture encoded as a key frame, for a viewer that lost some pictures. Key
        frames are a second apart at least, so a later picture may become the key frame. Returns at
        once."""
        with self._lock:
            self._key_wanted = True

    def limit(self, viewer: Viewer, bits_a_second: int) -> None:
        """Lower the video's bit rate, where need be, to what ``viewer``, which was added, can
        receive: its browser estimates ``bits_a_second``. All viewers get that video; the rate is
        raised again some seconds after the estimates have risen. Does nothing for a viewer that was
        not added, and before the first picture."""
        with self._lock:
            rate = self._viewers.get(viewer)
            if rate is None or self._video is None:
                return
            now = self._clock()
            while self._sent and now - self._sent[0][0] > _SENT_S:
                self._sent.popleft()
            sent = sum(bits for _, bits in self._sent) / _SENT_S
            usual = usual_bits_a_second(self._video.width, self._video.height)
            rate.estimated(bits_a_second, sent, self._most_bits or usual, now)

    def put(self, *items: Sound | Event) -> None:
        """Accept ``items``, sound and events, in the order in which they leave, and give the
        viewers the items of earlier calls that were kept. Where there is sound among ``items`` and
        somebody views, all of ``items`` are kept until the next ``show`` or ``put``; else they are
        given to the viewers at once. Sound is encoded when it leaves."""
        waits = bool(self._viewers) and any(isinstance(item, Sound) for item in items)
        with self._lock:
            before = self._waiting
            self._waiting += items
        if before or not waits:
            self._send_waiting(keep=len(items) if waits else 0)

    def show(self, shown: Shown) -> None:
        """Give the viewers the sound and events that were kept, then encode the picture ``shown``
        and give it to them. For one thread at a time. Raises InvalidInput where the avatar was not
        opened for I420."""
        self._send_waiting()
        now = self._clock()
        with self._lock:
            key = self._key_wanted and now - self._key_s >= _KEY_EVERY_S
            encoder = self._encoder_for(shown, now)
            key = key or encoder is not self._video
            self._video = encoder
        self._planes = shown.planes(self._planes)
        picture = encoder.encode(self._planes, shown.picture.frame, key=key)
        self.encoded += 1
        with self._lock:
            if picture.key:
                self._kept.clear()
                self._key_wanted, self._key_s = False, now
            if len(self._kept) <= _KEPT_FRAMES:  # one more says that there were too many
                self._kept.append(picture)
            self._sent.append((now, 8 * len(picture.data)))
            if len(self._sent) > _SENT_S * FPS:
                self._sent.popleft()
            viewers = tuple(self._viewers)
        for viewer in viewers:
            viewer((picture,))

    def close(self) -> None:
        """Give the viewers the sound and events that were kept, remove all viewers, and call
        ``on_close``. No viewer can be added after that."""
        self._send_waiting()
        with self._lock:
            self._closed = True
            self._viewers.clear()
            self._kept.clear()
        self._on_close()

    def _encoder_for(self, shown: Shown, now: float) -> LiveVideoEncoder:
        """The encoder for such a picture: a new one where its size or the bit rate has changed."""
        avatar, before = shown.avatar, self._video
        usual = usual_bits_a_second(avatar.width, avatar.height)
        wanted = self._most_bits or usual
        least = min(wanted, max(LOWEST_BITS_A_SECOND, round(_LEAST_OF_USUAL * usual)))
        for rate in self._viewers.values():
            if rate.limit is not None:
                wanted = min(wanted, max(rate.limit, least))
        size = (avatar.width + avatar.width % 2, avatar.height + avatar.height % 2)
        if before is not None and (before.width, before.height) == size:
            change = abs(wanted - before.bits_a_second) / before.bits_a_second
            if change < _RATE_CHANGES or now - self._rate_s < _RATE_EVERY_S:
                return before
        else:
            self._planes = None
        self._rate_s = now
        return LiveVideoEncoder(avatar.width, avatar.height, wanted)

    def _send_waiting(self, keep: int = 0) -> None:
        """Let what waits leave, but for the last ``keep`` items."""
        with self._sound_lock:  # held while it leaves, for the order to stay
            with self._lock:
                left = max(0, len(self._waiting) - keep)
                items, self._waiting = self._waiting[:left], self._waiting[left:]
                viewers = tuple(self._viewers)
            if not viewers:
                return
            media: list[Media] = []
            for item in items:
                if isinstance(item, Sound):
                    media += self._sound.encode(item.samples, item.frame * OPUS_RATE_HZ // FPS)
                else:
                    media.append(item)
            if media:
                for viewer in viewers:
                    viewer(tuple(media))
