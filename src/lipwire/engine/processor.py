"""Running networks on the processor: shared sessions over mapped weights.

An avatar's weights are never read into memory of their own: they are views of a mapped file, bound
to the inputs of a session that all avatars of the architecture share. So a second avatar costs the
pages of its weights that the system keeps in its page cache, and those are shared by every process
that maps the file.
"""

import threading
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from lipwire.domain import AvatarInvalid, Float32Array, Unavailable
from lipwire.engine.devices import (
    RUNTIME_ERRORS,
    Optimisation,
    open_session,
    session_options,
)
from lipwire.engine.sessions import SessionPool, SharedSession
from lipwire.engine.source import first_line
from lipwire.engine.storage import Manifest, map_weights, read_graph, weight_views
from lipwire.engine.wrapping import FACE, MOUTH, SPEECH, Form

FRAMES_PER_RUN: Final = 1
"""Frames in one run of a session whose batch is open. On a processor one is quickest, because its
activations stay nearest (per frame, one core: batches of 2, 4 and 8 take 4, 5 and 12 % longer at
the published widths, 7, 10 and 20 % at the mobile ones), and it holds the least memory."""

_Array = npt.NDArray[Any]


class _Lane:
    """One call's place: a session with a model's weights bound. Used by one thread at a time."""

    __slots__ = ("_binding", "_session")

    def __init__(self, session: SharedSession, weights: Mapping[str, Any]) -> None:
        self._session = session
        self._binding = session.new_binding()
        for name, value in weights.items():
            self._binding.bind_ortvalue_input(name, value)

    def run(self, face: _Array, speech: Float32Array, mouth: _Array) -> None:
        """Fill ``mouth``; all three are contiguous and of the session's shapes."""
        binding = self._binding
        for name, array in ((FACE, face), (SPEECH, speech)):
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output(MOUTH, "cpu", 0, mouth.dtype, mouth.shape, mouth.ctypes.data)
        self._session.run(binding)


class _ReadyForm:
    """One form of one model: its session, its weights, and the lanes that are free."""

    __slots__ = ("_free", "_session", "_weights")

    def __init__(self, session: SharedSession, weights: Mapping[str, Any]) -> None:
        self._session = session
        self._weights = weights
        self._free: deque[_Lane] = deque()

    def run(self, face: _Array, speech: Float32Array, mouth: _Array, step: int) -> None:
        """Run ``face`` and ``speech`` in pieces of ``step`` frames into ``mouth``."""
        try:
            lane = self._free.pop()
        except IndexError:
            lane = _Lane(self._session, self._weights)
        for start in range(0, len(face), step):
            piece = slice(start, start + step)
            lane.run(face[piece], speech[piece], mouth[piece])
        # A lane that failed is not used again.
        self._free.append(lane)


class ProcessorNetwork:
    """A network that was loaded for the processor; kept by its ``Model``."""

    __slots__ = (
        "__weakref__",
        "fixed_batch",
        "folder",
        "forms",
        "lock",
        "mapped",
        "stored",
        "unloaded",
    )

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises AvatarInvalid."""
        self.folder: Final = folder
        self.fixed_batch: Final = manifest.fixed_batch
        self.mapped = map_weights(folder, manifest)
        """None where there are none, and once it is unloaded."""
        self.stored = dict(manifest.graphs)
        """Those that are not ready yet."""
        self.forms: dict[Form, _ReadyForm] = {}
        self.lock: Final = threading.Lock()
        self.unloaded = False


class Processor:
    """Networks on the processor. Thread-safe; ``close`` it."""

    def __init__(self, *, threads: int | None) -> None:
        """``threads`` is how many cores one call may use; None for all of them."""
        self._threads = threads
        self._sessions = SessionPool()
        self._networks: weakref.WeakSet[ProcessorNetwork] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def session_count(self) -> int:
        """ONNX Runtime sessions alive: one for each architecture and form in use."""
        return len(self._sessions)

    def load(self, folder: Path, manifest: Manifest, form: Form = "pixels") -> ProcessorNetwork:
        """The network in ``folder``, ready in ``form``; copies no weights. Raises AvatarInvalid."""
        network = ProcessorNetwork(folder, manifest)
        with self._lock:
            self._check_open()
            self._networks.add(network)
        self._form(network, form)
        return network

    def unload(self, network: ProcessorNetwork) -> None:
        """Give up what ``network`` takes: at once, or when its last run is over. Later runs raise
        Unavailable."""
        network.unloaded = True
        with self._lock:
            self._networks.discard(network)
        _let_go(network)

    def run(
        self,
        network: ProcessorNetwork,
        form: Form,
        face: _Array,
        windows: Float32Array,
        mouth: _Array,
    ) -> None:
        """Fill ``mouth``. All arrays have N frames. Raises AvatarInvalid where the network fails,
        Unavailable where it was unloaded."""
        ready = self._form(network, form)
        face, windows = np.ascontiguousarray(face), np.ascontiguousarray(windows)
        batch = len(face)
        step = network.fixed_batch or FRAMES_PER_RUN
        try:
            whole = batch if network.fixed_batch is None else batch - batch % step
            if whole:
                ready.run(face[:whole], windows[:whole], mouth[:whole], step)
            if whole < batch:
                padded = np.empty((step, *mouth.shape[1:]), mouth.dtype)
                ready.run(_padded(face[whole:], step), _padded(windows[whole:], step), padded, step)
                mouth[whole:] = padded[: batch - whole]
        except RUNTIME_ERRORS as error:
            raise AvatarInvalid(f"the network failed: {first_line(error)}") from None

    def close(self) -> None:
        """Let go of all sessions and weights. Runs under way finish; later ones raise."""
        with self._lock:
            self._closed = True
            networks = list(self._networks)
            self._networks.clear()
        for network in networks:
            _let_go(network)

    def _form(self, network: ProcessorNetwork, form: Form) -> _ReadyForm:
        """The form of ``network`` that is asked for, made ready on the first call."""
        self._check_usable(network)
        ready = network.forms.get(form)
        if ready is not None:
            return ready
        with network.lock:
            ready = network.forms.get(form)
            if ready is None:
                self._check_usable(network)
                ready = self._make_ready(network, form)
                network.forms[form] = ready
                del network.stored[form]  # for thousands of avatars, 50 KB each
        return ready

    def _make_ready(self, network: ProcessorNetwork, form: Form) -> _ReadyForm:
        stored = network.stored[form]
        graph = read_graph(network.folder, stored)

        def make() -> Any:
            optimisation: Optimisation = "none" if stored.shared else "full"
            options = session_options(threads=self._threads, optimisation=optimisation)
            try:
                return open_session(graph, options)
            except RUNTIME_ERRORS as error:
                raise AvatarInvalid(
                    f"compiled model: {stored.file} cannot be loaded: {first_line(error)}"
                ) from None

        # Graphs of equal content share a session; a graph with its weights inside equals no other.
        session = self._sessions.get(f"{form}-{stored.shared}-{stored.sha256}", make)
        weights = {} if network.mapped is None else weight_views(network.mapped, stored)
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(view) for name, view in weights.items()
        }
        return _ReadyForm(session, values)

    def _check_usable(self, network: ProcessorNetwork) -> None:
        self._check_open()
        if network.unloaded:
            raise Unavailable("the network was unloaded")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")


def _let_go(network: ProcessorNetwork) -> None:
    with network.lock:
        network.forms.clear()
        network.mapped = None


def _padded(array: _Array, frames: int) -> _Array:
    """``array`` with its last frame repeated until there are ``frames``."""
    return np.concatenate([array, np.repeat(array[-1:], frames - len(array), axis=0)])
