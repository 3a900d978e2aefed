"""Whether a network's weights are numbers.

Training that diverged leaves NaN, which ONNX Runtime may swallow: a rectifier makes 0 of it, and
the network goes on with a part of what it learned.
"""

from collections.abc import Iterable

import numpy as np
from onnx import TensorProto, numpy_helper

from lipwire.domain import AvatarInvalid

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def check_finite_weights(tensors: Iterable[TensorProto], label: str) -> None:
    """Raise AvatarInvalid where ``tensors``, the weights of a network, contain NaN or infinity.

    The tensors have to be valid, and to have their data inside. A tensor of a single number is not
    checked, because bounds may be infinite. ``label``, the file's name, begins the message.
    """
    wrong: list[str] = []
    count = total = 0
    for tensor in tensors:
        if tensor.data_type not in _FLOATS:
            continue
        values = numpy_helper.to_array(tensor)
        total += values.size
        if values.size > 1 and not (finite := np.isfinite(values)).all():
            wrong.append(tensor.name)
            count += values.size - int(np.count_nonzero(finite))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        name = wrong[0] if len(wrong[0]) <= 60 else f"{wrong[0][:57]}..."
        raise AvatarInvalid(
            f"{label}: weights {name!r}{more} hold NaN or infinity ({count} of {total} numbers),"
            " allowed are finite ones: its training failed, an earlier checkpoint may be sound"
        )
