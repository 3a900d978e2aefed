"""One run of a network as it was exported, within a time: what it answers to a real crop."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from lipwire.domain import AvatarInvalid, DeadlineExceeded, Float32Array, UInt8Array
from lipwire.engine.compile.canonical import serialised
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.optimising import check_sizes
from lipwire.engine.compile.sourcemodel import damage_refused, read_model
from lipwire.engine.compile.wrapping import faces_of, wrap
from lipwire.engine.forms import FACE, MOUTH, OUTPUT_SHAPE, SPEECH
from lipwire.engine.runtime import RUNTIME_ERRORS, first_line, open_session, session_options

_THREADS: Final = 2
_ASK_EVERY_S: Final = 0.5


class NetworkTrial:
    """The network in the ONNX file ``path``, opened to be run a few times, so that a package can be
    checked without being compiled.

    Raises NotFound where there is no file, and AvatarInvalid where it is not ONNX, has inputs or
    outputs of other shapes than ``ModelInfo`` names, keeps data outside its folder, uses operators
    that are not allowed, or is refused by ONNX Runtime.
    """

    def __init__(self, path: Path) -> None:
        self.label = path.name
        source = read_model(path)
        with damage_refused(self.label):
            info = describe(source, self.label)
            wrapped = wrap(source.proto, info, "floats", info.fixed_batch)
            check_sizes(wrapped, self.label)
        self._batch = info.fixed_batch or 1
        try:
            # As it is: the optimiser folds constants, and may take longer for them than a run.
            options = session_options(threads=_THREADS, optimisation="none")
            self._session: Any = open_session(serialised(wrapped), options)
        except RUNTIME_ERRORS as error:
            raise AvatarInvalid(f"{self.label}: cannot be loaded: {first_line(error)}") from None

    def run(
        self, crop: UInt8Array, window: Float32Array, limit_s: float, waiting: Callable[[], None]
    ) -> Float32Array:
        """Run the network for one frame, and return its output, (3, 320, 320) float32, usually in
        [0, 1], not clipped, in the colour order of ``crop``.

        ``crop`` is (320, 320, 3) uint8 in the package's colour order, and ``window`` the audio
        window of the frame, (32, 16, 16) float32. ``waiting()`` is called twice a second meanwhile,
        and may raise an error to give up. Raises AvatarInvalid where the run fails or gives another
        shape, DeadlineExceeded where it takes longer than ``limit_s`` seconds. A run that is given
        up ends after the layer that is being computed, which is waited for.
        """
        feeds = {
            name: np.repeat(values, self._batch, axis=0)
            for name, values in ((FACE, faces_of(crop[None])), (SPEECH, window[None]))
        }
        try:
            mouths: Any = self._run_within(feeds, limit_s, waiting)
        except RUNTIME_ERRORS as error:
            raise AvatarInvalid(
                f"{self.label}: fails on a batch of {self._batch}: {first_line(error)}"
            ) from None
        if mouths.shape != (self._batch, *OUTPUT_SHAPE):
            wanted = (self._batch, *OUTPUT_SHAPE)
            raise AvatarInvalid(
                f"{self.label}: makes an output of {mouths.shape}, wanted is {wanted}"
            )
        mouth: Float32Array = mouths[0]
        return mouth

    def _run_within(
        self, feeds: dict[str, Float32Array], limit_s: float, waiting: Callable[[], None]
    ) -> Any:
        options = onnxruntime.RunOptions()
        until_s = time.monotonic() + limit_s
        with ThreadPoolExecutor(1, "lipwire-trial") as pool:
            running = pool.submit(self._session.run, [MOUTH], feeds, options)
            try:
                while True:
                    try:
                        return running.result(_ASK_EVERY_S)[0]
                    except TimeoutError:
                        waiting()
                    if time.monotonic() >= until_s:
                        raise DeadlineExceeded(
                            f"{self.label}: one frame takes more than {limit_s:g} s"
                        )
            finally:
                options.terminate = True  # leaving the block waits for the run
