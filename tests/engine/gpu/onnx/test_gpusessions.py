"""How sessions are opened for a GPU."""

from typing import Any

import pytest
from tests.engine.standin import PLENTY, SINGLE
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.domain import AvatarInvalid
from lipwire.engine import Device, Engine, runtime
from lipwire.engine.gpu.onnx import gpusessions
from lipwire.engine.runtime import CudaOptions
from lipwire.engine.tuning import Tuning

pytestmark = pytest.mark.slow


def test_a_graph_whose_inputs_are_read_elsewhere_is_refused(
    avatars: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is bound to a GPU's memory and read on the processor is copied once, for good: every
    face would be the first one's."""
    memory = HostMemory(PLENTY, device=Device.cuda(0))
    monkeypatch.setattr(
        gpusessions,
        "open_session",
        lambda graph, options, device, cuda: runtime.open_session(graph, options),
    )
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=SINGLE) as engine:
        model = load_both(engine, avatars[0][1])
        with pytest.raises(AvatarInvalid, match=r"cuda:0 cannot run .* reads face, speech, .* on"):
            engine.infer(model, inputs.crops, inputs.windows)


@pytest.mark.parametrize(("precision", "matrix_units"), [("single", False), ("half", True)])
def test_half_precision_may_use_the_matrix_units_and_single_may_not(
    memory: HostMemory,
    avatars: Any,
    make_inputs: Any,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    matrix_units: bool,
) -> None:
    asked: list[CudaOptions] = []
    whole = runtime.open_session

    def seen(graph: bytes, options: Any, device: Device, cuda: CudaOptions) -> Any:
        asked.append(cuda)
        return whole(graph, options, device, cuda)

    monkeypatch.setattr(gpusessions, "open_session", seen)
    inputs = make_inputs(1)
    with Engine(threads=1, memory=memory, tuning=Tuning(precision=precision)) as engine:
        engine.infer(load_both(engine, avatars[0][1]), inputs.crops, inputs.windows)
    assert [(cuda.tf32, cuda.stream > 0) for cuda in asked] == [(matrix_units, True)]
