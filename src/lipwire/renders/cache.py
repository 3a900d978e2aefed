"""A cache of finished videos by what they depend on, shared by servers: a video that a tenant
orders again is not made again."""

import hashlib
import json
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from lipwire import __version__
from lipwire.domain import LipwireError, NotFound
from lipwire.domain.newfiles import remove, storage_errors
from lipwire.renders.files import RenderFiles, hash_of
from lipwire.renders.job import SUFFIXES, Job
from lipwire.renders.removals import Removal
from lipwire.renders.rendering import Made
from lipwire.renders.sharedvideos import AWAY, SharedVideo, SharedVideos

_LOG: Final = logging.getLogger(__name__)
_FORM: Final = 1
"""Another number where videos of the same order become others."""

Result = Literal["hit", "miss", "away"]
"""What came of looking for the video of an order: it was there (``hit``), it was not (``miss``), or
it could not be looked for (``away``)."""

RESULTS: Final[tuple[Result, ...]] = ("hit", "miss", "away")


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of the video of an order: ``content``, a hash of everything that the video
    depends on, the avatar's ``version`` among it; ``version`` itself; and ``shared``, the finished
    video, None where there is none yet."""

    content: str
    version: str
    shared: SharedVideo | None


class RenderCache:
    """Finds finished videos of earlier orders, on whichever server they were made, and publishes
    those of this server for the others. Finished videos are in a store, and Redis knows which there
    are. Thread-safe. Errors of Redis or the store are not raised but logged: videos are then made
    as if there were no cache."""

    def __init__(
        self, videos: SharedVideos, files: RenderFiles, version: Callable[[str], str], voice: str
    ) -> None:
        """``videos`` are those that are shared, and ``files`` this server's. ``version(avatar)``
        says which version of an avatar is there now, empty where that is not known, and ``voice``
        which voice says texts, with all that its sound depends on."""
        self._videos = videos
        self._files = files
        self._version = version
        self._voice = voice
        self._lock = threading.Lock()
        self._results: Counter[Result] = Counter()
        self._told_away = False

    def results(self) -> Mapping[Result, int]:
        """Return how many orders were counted with ``count`` for each result, since this object was
        made: "hit" (the video was found), "miss" (it was not) and "away" (it could not be looked
        for). All three are always there."""
        with self._lock:
            return {result: self._results[result] for result in RESULTS}

    def look(self, job: Job) -> Looked | None:
        """Look for the video of ``job``, without downloading it. Where the job has no text, its
        recording has to be on the disk. Returns what is known, also where no video was found
        (``Looked.shared`` is None then); None where the video could not be looked for, such as when
        Redis does not answer."""
        try:
            version = self._version(job.order.avatar)
            if not version:
                return None
            content = self._content(job, version)
            return Looked(content, version, self._videos.find(content, job.order))
        except AWAY as error:
            self._tell_away(error)
            return None

    def fetch(self, looked: Looked, job: Job) -> Made | None:
        """Return the video that ``look`` has found for ``job`` (``looked``), as a file of this
        process's own, which the caller has to remove or keep. Downloads the video where it is not
        on this server's disk. Returns None where ``looked`` has no video, and where that is no
        longer in the store, is damaged, or cannot be downloaded."""
        shared, suffix = looked.shared, SUFFIXES[job.order.format]
        if shared is None:
            return None
        path = self._files.new_file(suffix)
        try:
            here = self._files.video(shared.video.sha256, suffix)
            if here.is_file():
                with storage_errors(path):
                    try:
                        os.link(here, path)
                    except OSError:  # as on a file system without them
                        shutil.copyfile(here, path)
            else:
                self._videos.take(shared, path)
        except AWAY as error:
            remove(path)
            if isinstance(error, NotFound):
                _LOG.warning("a shared render is made again: %s", error)
                with suppress(*AWAY):
                    self._videos.hide(Removal("video", shared.name, 0.0))
            else:
                self._tell_away(error)
            return None
        self._told_away = False
        return Made(path, shared.video, shared.frames, looked.version, shared.name)

    def count(self, result: Result) -> None:
        """Count one order in ``results``. ``result`` says whether its video was found ("hit"), was
        not ("miss"), or could not be looked for ("away")."""
        with self._lock:
            self._results[result] += 1

    def publish(self, job: Job, looked: Looked, made: Made, keeps: Callable[[str], bool]) -> None:
        """Copy the video ``made`` of ``job``, which is finished, to the store, so that it is found
        for orders of the same content from now on; waits until it is copied. ``looked`` is what
        ``look`` has returned for the job. Does nothing where the video was made with another
        version of the avatar than that of ``looked``.

        ``keeps(name)`` is called with the name of the video in the store, before and after it can
        be found. It has to write the name down with the job, and return whether the job is still
        there: where it is not, the video is withdrawn.
        """
        if made.version != looked.version:
            return  # the avatar was replaced meanwhile, or is not everywhere the same
        try:
            path = self._files.video(made.video.sha256, SUFFIXES[job.order.format])
            name = self._videos.put(looked.content, job.order, path, made.video)
            removal = Removal("video", name, 0.0)
            if not keeps(name):
                self._videos.remove(removal)
                return
            self._videos.point(SharedVideo(name, made.video, made.frames), job.created_s)
            if not keeps(name):
                self._videos.hide(removal)
        except AWAY as error:
            self._tell_away(error)

    def hide(self, removal: Removal) -> None:
        """Have the videos that ``removal`` names be found no more. They stay in the store until
        ``remove`` is called. Where Redis does not answer, nothing happens and nothing is raised."""
        with suppress(*AWAY):
            self._videos.hide(removal)

    def remove(self, removal: Removal) -> bool:
        """Have the videos that ``removal`` names be found no more, and remove them from the store.
        Returns True where both were done, False where this has to be tried again."""
        removed = True
        for step in (self._videos.hide, self._videos.remove):
            try:
                step(removal)
            except AWAY as error:
                self._tell_away(error)
                removed = False
        return removed

    def remove_expired(self) -> None:
        """Remove the videos that have expired from the store, whichever server has put them there.
        Where the store does not answer, nothing is raised."""
        try:
            self._videos.remove_expired()
        except AWAY as error:
            self._tell_away(error)

    def removed_elsewhere(self) -> Mapping[str, float]:
        """Return of which tenants and avatars all renders were removed, by this server or another
        one, since this was last called. Keys are "tenant:" or "avatar:" and the first 32
        hexadecimal digits of the SHA-256 of the name (``lipwire.stores.digest``); values are times
        in seconds since 1970: renders ordered before them were removed.
        Empty where Redis does not answer."""
        try:
            return self._videos.removed_elsewhere()
        except AWAY:
            return {}

    def _content(self, job: Job, version: str) -> str:
        """The hash of all that the video of ``job`` depends on, and of whose it is. Raises
        StorageFailed where its recording cannot be read."""
        order = job.order
        said = (
            ["sound", hash_of(self._files.input(job.id))]
            if order.text is None
            else ["text", self._voice, order.text]
        )
        every = [_FORM, __version__, order.tenant, order.avatar, version, order.format]
        text = json.dumps([*every, order.start_frame, *said])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _tell_away(self, error: Exception) -> None:
        level = logging.DEBUG if self._told_away or isinstance(error, NotFound) else logging.WARNING
        self._told_away = self._told_away or level == logging.WARNING
        _LOG.log(level, "the cache of renders is not used: %s", _text_of(error))


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, LipwireError) else "Redis is away"
