"""Which version of an avatar is shown to whom, where some are shown another one than the rest."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from lipwire.avatars.packages import Packages
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.domain import Call, LipwireError
from lipwire.domain.versions import Choose, Chosen, one_version
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Registry
from lipwire.serving import Backend, LoadedAvatar

_LOAD_TIMEOUT_S: Final = 600.0
"""How long a canary may take to be downloaded, compiled and loaded beside the requests."""


def choosing(
    catalog: Packages,
    avatars: Registry[LoadedAvatar],
    backend: Backend | None,
    metrics: ServerMetrics,
    clock: Callable[[], float] = time.perf_counter,
) -> Choose:
    """Return a function that says which version of an avatar of ``catalog`` is shown to whom
    (``Choose``); where the avatars of ``catalog`` lie in a folder, each has only one version.

    Where an avatar has a canary (a version that only a share of those who use it are shown),
    ``metrics`` counts how calls for each of its two versions end. A canary is loaded into
    ``avatars`` before anybody is shown it, and its network by ``backend``; None where the networks
    are in ``avatars``, too. ``clock`` gives seconds.
    """
    if not isinstance(catalog, StoredAvatars):
        return one_version
    stored = catalog

    def load(name: str) -> None:
        avatars.load(name, timeout_s=_LOAD_TIMEOUT_S)
        if backend is not None:
            backend.load(name, call=Call(_LOAD_TIMEOUT_S))

    stored.canaries.load = load

    @contextmanager
    def choose(avatar: str, who: str, service: str) -> Iterator[Chosen]:
        chosen = stored.choose(avatar, who)
        if chosen.kind is None:
            yield chosen
            return
        began_s, code = clock(), "INTERNAL"
        try:
            yield chosen
            code = "OK"
        except LipwireError as error:
            code = error.code
            raise
        finally:
            seconds = None if service == "render" else clock() - began_s
            metrics.of_version(chosen.kind, service, code, seconds)

    return choose
