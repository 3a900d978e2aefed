"""Running networks on the processor: shared sessions over mapped weights.

An avatar's weights are never read into memory of their own: they are views of a mapped file, bound
to the inputs of a session that all avatars of the architecture share. So a second avatar costs the
pages of its weights that the system keeps in its page cache, and those are shared by every process
that maps the file.
"""

import logging
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from lipwire.domain import (
    AudioWindows,
    AvatarInvalid,
    Crops,
    Form,
    Mouths,
    StorageFailed,
    Unavailable,
)
from lipwire.engine.cpu.sessionpool import SessionPool
from lipwire.engine.forms import FACE, MOUTH, SPEECH
from lipwire.engine.graphs import RunPrecision
from lipwire.engine.runtime import (
    RUNTIME_ERRORS,
    Optimisation,
    first_line,
    memory_returned,
    open_session,
    session_options,
)
from lipwire.engine.special.hot import HotStats, HotTier, Samples
from lipwire.engine.special.openvino import OpenVinoFailed, SpecialisedNetwork, why_not
from lipwire.engine.special.store import SpecialStore
from lipwire.engine.store.modelfiles import Manifest, map_weights, read_graph, weight_views

FRAMES_PER_RUN: Final = 1
"""Frames in one run of a session whose batch is open. On a processor one is quickest, because its
activations stay nearest (per frame, one core: batches of 2, 4 and 8 take 4, 5 and 12 % longer at
the published widths, 7, 10 and 20 % at the mobile ones), and it holds the least memory."""

_Array = npt.NDArray[Any]
_LOG: Final = logging.getLogger("lipwire.engine")


class SharedSession:
    """An ``onnxruntime.InferenceSession`` that all avatars of an architecture (networks with equal
    graphs) share; safe to run from several threads at once.

    Its first run allocates the memory of activations one by one and learns the pattern; later runs
    allocate it in one piece. The first run therefore frees its memory at the end, which would
    otherwise be kept twice (full network: 349 MB instead of 178, at the same speed).
    """

    __slots__ = ("__weakref__", "_session", "_settled")

    def __init__(self, session: Any) -> None:
        """``session`` is an opened ``onnxruntime.InferenceSession``."""
        self._session = session
        self._settled = False

    def new_binding(self) -> Any:
        """Return a new ``onnxruntime.IOBinding`` of the session, into which the caller puts inputs
        and outputs before passing it to ``run``; for one call at a time."""
        return self._session.io_binding()

    def run(self, binding: Any) -> None:
        """Run the session with the inputs and outputs of ``binding``, an ``onnxruntime.IOBinding``
        that ``new_binding`` returned, and wait for the end. Raises one of ``RUNTIME_ERRORS`` where
        ONNX Runtime fails."""
        if self._settled:
            self._session.run_with_iobinding(binding)
        else:
            self._session.run_with_iobinding(binding, memory_returned())
            self._settled = True


class _LoadedForm:
    """One form of one model: its session, its weights, and the bindings that are free, each with
    the weights bound and used by one call at a time."""

    __slots__ = ("_free", "_session", "_weights")

    def __init__(self, session: SharedSession, weights: Mapping[str, Any]) -> None:
        self._session = session
        self._weights = weights
        self._free: deque[Any] = deque()

    def run(self, face: _Array, speech: AudioWindows, mouth: _Array, step: int) -> None:
        """Run ``face`` and ``speech`` in pieces of ``step`` frames into ``mouth``; all three are
        contiguous and of the session's shapes."""
        try:
            binding = self._free.pop()
        except IndexError:
            binding = self._session.new_binding()
            for name, value in self._weights.items():
                binding.bind_ortvalue_input(name, value)
        for start in range(0, len(face), step):
            made = mouth[start : start + step]
            for name, given in ((FACE, face), (SPEECH, speech)):
                array = given[start : start + step]
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            binding.bind_output(MOUTH, "cpu", 0, made.dtype, made.shape, made.ctypes.data)
            self._session.run(binding)
        # A binding that failed is not used again.
        self._free.append(binding)


class ProcessorNetwork:
    """A network that ``Processor.load`` has loaded for the processor: weights that are mapped into
    memory, and sessions that are shared. Specialised, it runs in bfloat16 in OpenVINO instead,
    which is faster. The ``Model`` that it belongs to owns it."""

    on_gpu: Final = False
    device_bytes: Final = 0
    in_kernels: Final = False
    keeps_crops: Final = False
    together: Final = None
    warm: Final = True

    __slots__ = (
        "__weakref__",
        "counted",
        "expected",
        "fixed_batch",
        "folder",
        "forms",
        "frames",
        "lock",
        "mapped",
        "samples",
        "source",
        "source_sha256",
        "special",
        "stored",
        "unloaded",
    )

    def __init__(self, folder: Path, manifest: Manifest, source: Path | None) -> None:
        """``folder`` is the compiled network, as ``compile_model`` filled it, and ``manifest`` what
        its model.json says. ``source`` is the ONNX file that it was made of; with None it is never
        specialised. Raises AvatarInvalid where the file of weights is missing or damaged,
        MemoryError where this process has no room to map it."""
        self.folder: Final = folder
        self.source: Final = source
        self.source_sha256: Final = manifest.source_sha256
        self.special: SpecialisedNetwork | None = None
        """What runs it as pixels in place of the session that all share; None for nothing."""
        self.frames = self.counted = 0
        """How many mouths it has made as pixels, about: threads may count at the same time."""
        self.expected = False
        """Whether somebody is about to use it much."""
        self.samples: Samples | None = None
        """Takes frames that it is asked for, where they are wanted."""
        self.fixed_batch: Final = manifest.fixed_batch
        self.mapped = map_weights(folder, manifest)
        """None where there are none, and once it is unloaded."""
        self.stored = dict(manifest.graphs)
        """Those that are not ready yet."""
        self.forms: dict[Form, _LoadedForm] = {}
        self.lock: Final = threading.Lock()
        self.unloaded = False

    @property
    def precision(self) -> RunPrecision:
        """The precision in which the network runs in the form "pixels" now: "bfloat16" where it
        runs specialised, else "single" (float32). In the form "floats" it always runs in "single".
        """
        return "single" if self.special is None else "bfloat16"


class Processor:
    """Runs networks on the processor: in ONNX Runtime in float32, or specialised, which means
    compiled for this very processor by OpenVINO, in bfloat16. Arguments of runs are not checked:
    ``Engine`` does that. Thread-safe; whoever makes it calls ``close``."""

    def __init__(self, *, threads: int | None, hot: HotTier | None = None) -> None:
        """``threads`` is how many cores one call may use; None for all of them. ``hot`` finds the
        networks that are used much and specialises them; it is closed with this object. With None a
        network is specialised only by a call of ``specialise``."""
        self._threads = threads
        self._hot = hot
        self._sessions: SessionPool[SharedSession] = SessionPool()
        self._networks: weakref.WeakSet[ProcessorNetwork] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def session_count(self) -> int:
        """Number of open ONNX Runtime sessions: one for each architecture (networks with equal
        graphs) and form ("pixels" or "floats") in use."""
        return len(self._sessions)

    @property
    def hot_stats(self) -> HotStats:
        """How many networks run specialised now, because they are used much, the memory that these
        take, and counts since the start. All are 0 without a ``hot`` tier."""
        return HotStats() if self._hot is None else self._hot.stats

    def load(
        self,
        folder: Path,
        manifest: Manifest,
        form: Form = "pixels",
        *,
        source: Path | None = None,
    ) -> ProcessorNetwork:
        """Load the compiled network in ``folder``, with its ``manifest``, and open its session for
        ``form``; a session for another form is opened when that form is first run. Weights are
        mapped, not copied. ``source`` is the network's ONNX file; without it, the network is never
        specialised. Raises AvatarInvalid where a file is missing or damaged, RuntimeError once this
        is closed."""
        network = ProcessorNetwork(folder, manifest, source)
        with self._lock:
            self._check_open()
            self._networks.add(network)
        self._form(network, form)
        if self._hot is not None:
            self._hot.watch(self._loaded)
        return network

    def prefetch(self, network: ProcessorNetwork) -> bool:
        """Count ``network`` as one that is used much, so that a ``hot`` tier has it specialised
        soon. Returns True, at once: nothing has to be copied before a run, because weights are
        mapped and the system reads them when they are used."""
        network.expected = True
        return True

    def specialise(
        self, network: ProcessorNetwork, crops: Crops, windows: AudioWindows, lanes: int
    ) -> str | None:
        """Have ``network`` run specialised (in bfloat16) from now on, in up to ``lanes`` threads at
        a time, if that is faster and the mouths that it makes of ``crops``, (N, 320, 320, 3) uint8,
        and ``windows``, (N, 32, 16, 16) float32, differ little from those in float32.

        Waits for the trial, which takes seconds where there was none on this machine with this
        network and as many lanes. Returns why it is not specialised, in one line; None where it is.
        Raises nothing: an error is returned as such a line.
        """
        if network.source is None:
            return "its ONNX file is not known"
        if (problem := why_not()) is not None:
            return problem
        store = SpecialStore(tried_with="sentence")
        sha256 = network.source_sha256
        try:
            for _ in range(2):  # what is kept may be damaged
                verdict = store.verdict(sha256, lanes) or store.make(
                    network.source, sha256, crops, windows, lanes
                )
                if verdict.reason:
                    return verdict.reason
                if (blob := store.network(sha256, lanes)) is not None:
                    network.special = SpecialisedNetwork(blob, lanes)
                    return None
        except (OpenVinoFailed, StorageFailed) as error:
            return str(error)
        except Exception as error:  # a faster network is nothing that a render may fail for
            _LOG.exception("the network %s runs in float32", network.source)
            return first_line(error)
        return "it is not kept on the disk"

    def unload(self, network: ProcessorNetwork) -> None:
        """Free the memory that ``network`` takes: at once, or when its last run is over, which is
        not waited for. Later runs raise Unavailable. Unloading twice is allowed."""
        network.unloaded = True
        with self._lock:
            self._networks.discard(network)
        if self._hot is not None:
            self._hot.forget(network)
        _let_go(network)

    def run(
        self,
        network: ProcessorNetwork,
        form: Form,
        face: _Array,
        windows: AudioWindows,
        mouth: _Array,
    ) -> None:
        """Run ``network`` in ``form`` and write the mouths of N frames, at least 1, into ``mouth``.

        For "pixels" ``face`` is crops and ``mouth`` the mouths, both (N, 320, 320, 3) uint8; for
        "floats" ``face`` is (N, 6, 320, 320), the crops and then the crops with the mouth black,
        usually in [0, 1], and ``mouth`` (N, 3, 320, 320), both float32; colours are in the avatar's
        order. ``windows`` are (N, 32, 16, 16) float32. Shapes and types are not checked. ``mouth``
        has to be contiguous.

        Raises AvatarInvalid where the network fails, Unavailable where it was unloaded,
        RuntimeError once the ``Processor`` is closed. Where OpenVINO fails, the frames are run in
        ONNX Runtime and nothing is raised.
        """
        self._check_usable(network)
        face, windows = np.ascontiguousarray(face), np.ascontiguousarray(windows)
        pixels = form == "pixels"
        if not (pixels and self._run_special(network, face, windows, mouth)):
            self._run_shared(network, form, face, windows, mouth)
        if pixels:
            network.frames += len(face)
            if (samples := network.samples) is not None:
                samples.add(face, windows)

    def _run_special(
        self, network: ProcessorNetwork, crops: Crops, windows: AudioWindows, mouths: Mouths
    ) -> bool:
        """Run it specialised; False where it is not, where that fails, or, in a server, where it is
        run by as many as can already."""
        special = network.special
        if special is None:
            return False
        try:
            return special.run(crops, windows, mouths, wait=self._hot is None)
        except OpenVinoFailed as error:
            _LOG.warning("the network %s runs in float32 again: %s", network.source, error)
            network.special = None
            if self._hot is not None:
                self._hot.forget(network, refuse=True)
            return False

    def _run_shared(
        self,
        network: ProcessorNetwork,
        form: Form,
        face: _Array,
        windows: AudioWindows,
        mouth: _Array,
    ) -> None:
        ready = self._form(network, form)
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
        """Free all sessions and weights. Runs under way finish; later loads and runs raise
        RuntimeError. Closing twice is allowed."""
        if self._hot is not None:
            self._hot.close()
        with self._lock:
            self._closed = True
            networks = list(self._networks)
            self._networks.clear()
        for network in networks:
            _let_go(network)

    def _loaded(self) -> list[ProcessorNetwork]:
        """The networks that are loaded now."""
        with self._lock:
            return list(self._networks)

    def _form(self, network: ProcessorNetwork, form: Form) -> _LoadedForm:
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

    def _make_ready(self, network: ProcessorNetwork, form: Form) -> _LoadedForm:
        stored = network.stored[form]
        graph = read_graph(network.folder, stored)

        def make() -> SharedSession:
            optimisation: Optimisation = "none" if stored.shared else "full"
            options = session_options(threads=self._threads, optimisation=optimisation)
            try:
                return SharedSession(open_session(graph, options))
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
        return _LoadedForm(session, values)

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
        network.mapped = network.special = None


def _padded(array: _Array, frames: int) -> _Array:
    """``array`` with its last frame repeated until there are ``frames``."""
    return np.concatenate([array, np.repeat(array[-1:], frames - len(array), axis=0)])
