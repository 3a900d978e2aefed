"""The types of arrays that are passed between packages: what each holds.

N is the number of frames. Where arrays come in, from messages or from callers, their shapes and
dtypes are checked once; inside, these names say what they are. All are contiguous unless the place
says otherwise.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from lipwire.domain.errors import InvalidInput

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

Crops = npt.NDArray[np.uint8]
"""(N, 320, 320, 3) uint8, 0 to 255, channels in the package's colour order: what networks see of
frames."""

AudioWindows = npt.NDArray[np.float32]
"""(N, 32, 16, 16) float32, finite: what each frame hears, 16 rows of the audio encoder."""

Mouths = npt.NDArray[np.uint8]
"""(N, 320, 320, 3) uint8, 0 to 255, channels in the package's colour order: what networks make."""

FloatMouths = npt.NDArray[np.float32]
"""(N, 3, 320, 320) float32, by custom in [0, 1], channels in the package's colour order: mouths as
networks of the family make them themselves."""


class Visual(np.ndarray[tuple[Any, ...], np.dtype[np.float32]]):
    """An array of what lip-sync networks of this family (SyncTalk_2D) take for N frames: (N, 6,
    320, 320) float32, finite, by custom in [0, 1], in the package's colour order.

    Channels 0 to 2 are the crop, the picture of the face in a frame, and 3 to 5 the crop with the
    mouth blacked out. It is a view of a plain array, ``array.view(Visual)``: a function that takes
    crops, too, tells the two apart by this type.
    """


class FrameNumbers(np.ndarray[tuple[Any, ...], np.dtype[np.int64]]):
    """An array of numbers of N frames of an avatar, (N,) int64, from 0, in place of their crops,
    the pictures of the face that the network is shown, where a device keeps the crops itself.

    It is a view of a plain array, ``array.view(FrameNumbers)``: a function that takes crops, too,
    tells the two apart by this type.
    """


Faces = Crops | FrameNumbers | Visual
"""What a network may be shown of N frames."""


def check_array(
    name: str,
    array: npt.NDArray[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch: int | None = None,
) -> int:
    """Return N, the number of frames in ``array``, which has to be (N, *shape) of ``dtype``, with N
    at least 1, or equal to ``batch`` where that is given.

    Raises InvalidInput for any other array; ``name`` names the array in the message.
    """
    first = "N" if batch is None else str(batch)
    wanted = f"({', '.join((first, *map(str, shape)))}) {dtype}"
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"{name} is a {type(array).__name__}, wanted is {wanted}")
    if array.dtype != dtype or array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        raise InvalidInput(f"{name} is {array.shape} {array.dtype}, wanted is {wanted}")
    if len(array) < 1 or (batch is not None and len(array) != batch):
        raise InvalidInput(f"{name} holds {len(array)} frames, wanted is {wanted}")
    return len(array)


def check_finite(name: str, values: Float32Array) -> None:
    """Raise InvalidInput where ``values``, an array of any shape with one value at least, hold NaN
    or infinity; ``name`` names the array in the message."""
    # The largest and the smallest say it all, without an array of booleans: NaN wins in both.
    if not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise InvalidInput(f"{name} holds NaN or infinite values, wanted are finite ones")
