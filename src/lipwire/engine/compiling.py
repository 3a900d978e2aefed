"""From a network's ONNX file to the folder that the engine loads.

A network that does not come out bit for bit as ONNX Runtime would run it by itself is not shared:
it is stored whole and gets a session of its own. This is checked here, on every network, by running
both on the same noise. Beside what the processor runs, graphs for GPUs are made (``gpugraphs``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from lipwire.domain import AvatarInvalid, StorageFailed
from lipwire.engine.gpugraphs import build_for_gpu
from lipwire.engine.gpustorage import gpu_files
from lipwire.engine.inspection import ModelInfo, describe
from lipwire.engine.optimising import (
    BuiltGraph,
    build,
    check_sizes,
    optimise,
    runtime_key,
    try_out,
)
from lipwire.engine.source import damage_refused, read_model
from lipwire.engine.storage import MANIFEST_NAME, WEIGHTS_NAME, write_compiled
from lipwire.engine.wrapping import FORMS, Form, wrap


@dataclass(frozen=True, slots=True)
class _Built:
    """One form of a network."""

    fixed_batch: int | None
    """The batch that it turned out to be fixed at."""
    wrapped: onnx.ModelProto
    session: Any
    """The ordinary session of it."""
    graph: BuiltGraph


def compile_model(source: Path, target: Path) -> None:
    """Compile the ONNX file ``source`` into the existing, empty folder ``target``.

    Takes about twenty inferences. Raises NotFound where ``source`` is missing, AvatarInvalid where
    it is not a network of the guide's shapes or does not run, StorageFailed where ``target`` cannot
    be written. On any error, an interruption included, ``target`` is left as it was.
    """
    label = source.name
    model = read_model(source)
    with damage_refused(label):
        info = describe(model, label)
    if not target.is_dir():
        raise StorageFailed(f"the compiled model's folder {target.name} is not there")
    done = False
    try:
        floats = _build(model.proto, info, "floats", info.fixed_batch, label, target)
        pixels = _build(model.proto, info, "pixels", floats.fixed_batch, label, target)
        graphs: dict[Form, BuiltGraph] = {"pixels": pixels.graph, "floats": floats.graph}
        gpu = build_for_gpu(floats.wrapped, pixels.session, info, floats.fixed_batch, label, target)
        write_compiled(
            target,
            graphs,
            runtime=runtime_key(),
            source_sha256=model.sha256,
            fixed_batch=floats.fixed_batch,
            parameters=info.parameters,
            gpu=gpu,
        )
        done = True
    except OSError as error:
        raise StorageFailed(f"{label}: cannot be compiled: {error.strerror}") from None
    finally:
        if not done:
            graph_names = (f"{form}.onnx" for form in FORMS)
            for name in (MANIFEST_NAME, WEIGHTS_NAME, *graph_names, *gpu_files()):
                (target / name).unlink(missing_ok=True)


def _build(
    model: onnx.ModelProto,
    info: ModelInfo,
    form: Form,
    fixed_batch: int | None,
    label: str,
    scratch: Path,
) -> _Built:
    with damage_refused(label):
        wrapped = wrap(model, info, form, fixed_batch)
        check_sizes(wrapped, label)
    session, optimised = optimise(wrapped, label, scratch)
    try:
        # Two frames where any number should do: some networks say so and then take only one.
        mouth = try_out(session, form, fixed_batch or 2, label)
    except AvatarInvalid:
        if fixed_batch is not None:
            raise
        return _build(model, info, form, 1, label, scratch)
    graph = build(session, optimised, wrapped, form, mouth)
    return _Built(fixed_batch, wrapped, session, graph)
