"""Arrays as callers give them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array, InvalidInput


def check_array(
    name: str,
    array: npt.NDArray[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    batch: int | None = None,
) -> int:
    """N of an array that is (N, *shape), at least 1, and ``batch`` where that is given.

    Raises InvalidInput for any other.
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
    """Raises InvalidInput where NaN or an infinity is among ``values``."""
    # The largest and the smallest say it all, without an array of booleans: NaN wins in both.
    if not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise InvalidInput(f"{name} holds NaN or infinite values, wanted are finite ones")
