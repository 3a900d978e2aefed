"""Parts of ``bench gpu``: are the faces right, and how fast are they made?"""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from lipwire.bench.gpurig import (
    KERNELS,
    ONNX,
    ROADS,
    OtherRoad,
    Rig,
    Row,
    called,
    inputs,
    road_of,
)
from lipwire.domain import MOUTH_PX, Form, UInt8Array, percentile
from lipwire.engine import Engine, Model, Tuning
from lipwire.engine.forms import BATCH
from lipwire.engine.gpu.compile.halfprecision import MAX_DIFFERENCE
from lipwire.engine.gpu.gpustreams import GpuStream
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.memory.weightscache import WeightsCache
from lipwire.engine.gpu.onnx.architectures import Architecture
from lipwire.engine.gpu.store.gpufiles import ImageFile, read_gpu_graph
from lipwire.engine.graphs import PRECISIONS, Precision
from lipwire.engine.runtime import (
    CudaOptions,
    Optimisation,
    note_placement,
    open_session,
    placed_nodes,
    providers,
    read_on_processor,
    session_options,
)
from lipwire.engine.store.files import StoredWeight


def faces(rig: Rig) -> Iterator[Row]:
    """Yield a row with how much the mouths that Lipwire's kernels make on the device of ``rig``
    differ from those of the processor: the largest and the mean difference of pixels, in levels of
    0 to 255. If the mouths were wrong, their speed would say nothing."""
    yield from _faces(rig, KERNELS, ("half",))


def onnx_faces(rig: Rig) -> Iterator[Row]:
    """Yield a row for each precision with how much the mouths that ONNX Runtime makes on the device
    of ``rig`` differ from those of the processor: the largest and the mean difference of pixels, in
    levels of 0 to 255."""
    yield from _faces(rig, ONNX, PRECISIONS)


def _faces(rig: Rig, road: str, precisions: Sequence[Precision]) -> Iterator[Row]:
    crops, windows = inputs(rig.large)
    with Engine() as engine:
        wanted = [
            engine.infer(engine.load(rig.compiled(number)), crops[:2], windows[:2])
            for number in range(2)
        ]
    for precision in precisions:
        with rig.engine(Tuning(precision=precision, kernels=road == KERNELS)) as engine:
            models = [rig.load(engine, number) for number in range(2)]
            made = [
                engine.infer(models[number], crops[:frames], windows[:frames])[:2]
                for frames in (2, rig.large)
                for number in range(2)
            ]
            apart = np.abs(np.array(made).astype(int) - np.array(wanted + wanted))
            yield {
                "road": road_of(models[0]),
                "precision": models[0].precision,
                "most": int(apart.max()),
                "mean": round(float(apart.mean()), 4),
            }


def placement(rig: Rig) -> Iterator[Row]:
    """Yield rows with how many nodes of the network, and which operators, ONNX Runtime runs on the
    GPU of ``rig`` and how many on the processor. Nodes on the processor cost copies from the GPU
    and back."""
    for precision in PRECISIONS:
        model = rig.gpu_model(0, precision)
        if model is None:
            yield {"precision": precision, "problem": "there is none of this network"}
            continue
        options = session_options(threads=1, optimisation="full" if rig.options.fuse else "basic")
        options.add_free_dimension_override_by_name(BATCH, rig.large)
        note_placement(options)
        graph = read_gpu_graph(rig.compiled(0, for_gpu=True), model.graphs["pixels"])
        session = open_session(graph, options, rig.device_of_sessions, rig.options)
        elsewhere = read_on_processor(session)
        for provider, counts in sorted(placed_nodes(session).items()):
            names = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
            yield {
                "precision": precision,
                "provider": provider.removesuffix("ExecutionProvider"),
                "nodes": sum(counts.values()),
                "operators": names,
            }
        yield {
            "precision": precision,
            "inputs read on the processor": ", ".join(elsewhere[:8]) or "none",
        }


def floor(rig: Rig) -> Iterator[Row]:
    """Yield rows with the least time that a frame can take if its layers are computed one after the
    other: the bytes that the layers read and write, divided by the measured bandwidth of the memory
    of ``rig``."""
    bandwidth = copy_bytes_per_s(rig.gpu_memory(), 1 << (20 if rig.quick else 30))
    yield {"what": "copy within the device", "GB/s": round(bandwidth / 1e9, 1)}
    for precision in PRECISIONS:
        model = rig.gpu_model(0, precision)
        if model is not None:
            graph = onnx.load(rig.compiled(0, for_gpu=True) / model.graphs["pixels"].file)
            frame_bytes = traffic_bytes(graph)
            yield {
                "what": f"{precision}, layer by layer",
                "MB a frame": round(frame_bytes / 1e6, 1),
                "ms a frame": round(frame_bytes / bandwidth * 1e3, 4),
            }


def copy_bytes_per_s(memory: Memory, size_bytes: int) -> float:
    """Return how fast the device of ``memory`` copies ``size_bytes`` bytes from one place of its
    memory to another, as measured now: bytes read and bytes written together, a second."""
    stream = memory.open_stream()
    regions = [memory.allocate(size_bytes) for _ in range(2)]
    try:
        times_s = []
        for _ in range(8):
            begun_s = time.perf_counter()
            for _ in range(4):
                memory.copy(stream, regions[0].address, regions[1].address, size_bytes)
            memory.wait(stream)
            times_s.append(time.perf_counter() - begun_s)
        return 4 * 2 * size_bytes / statistics.median(times_s[2:])
    finally:
        for region in regions:
            memory.free(region)
        memory.close_stream(stream)


def traffic_bytes(model: onnx.ModelProto) -> int:
    """Return how many bytes the layers of ``model``, an ONNX network for GPUs, read and write for
    one frame, if each layer reads each of its inputs and writes each of its outputs once.

    A Relu, Sigmoid or Clip directly after a convolution is not counted: the convolution applies it
    while it writes.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        dim = value.type.tensor_type.shape.dim[0] if value.type.tensor_type.shape.dim else None
        if dim is not None and dim.dim_param == BATCH:
            dim.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    sizes: dict[str, int] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        sizes[value.name] = int(np.prod(dims)) * item
    made_by = {name: node for node in graph.node for name in node.output}
    total = 0
    for node in graph.node:
        if node.op_type == "Identity":
            continue
        maker = made_by.get(node.input[0])
        if node.op_type in ("Relu", "Sigmoid", "Clip") and maker and maker.op_type == "Conv":
            continue
        total += sum(sizes.get(name, 0) for name in (*node.input, *node.output))
    return total


def ways(rig: Rig) -> Iterator[Row]:
    """Yield a row for each set of session options, with the speed of ONNX Runtime on the device of
    ``rig`` with them. The fastest set is written down with ``Rig.prefer``, for the parts that
    follow.

    Options that do not work, or that give wrong mouths (compared with the processor's), are not
    used; their row has a ``problem``. Ends early when the rig's time is up.
    """
    candidates = {
        "as it comes": CudaOptions(),
        "channels last": CudaOptions(channels_last=True),
        "channels last, bias fused": CudaOptions(channels_last=True, fuse_bias=True),
        "CUDA graphs": CudaOptions(graphs=True),
        "channels last, bias fused, CUDA graphs": CudaOptions(
            channels_last=True, fuse_bias=True, graphs=True
        ),
        "not fused": CudaOptions(fuse=False),
        "not fused, CUDA graphs": CudaOptions(fuse=False, graphs=True),
        "heuristic algorithms": CudaOptions(exhaustive=False),
    }
    quickest = float("inf")
    crops, windows = inputs(rig.large)
    with Engine() as engine:
        wanted = engine.infer(engine.load(rig.compiled(0)), crops[:2], windows[:2])
    for name, options in candidates.items():
        row: Row = {"way": name}
        try:
            tuning = Tuning(streams=2, batch_sizes=(rig.large,), kernels=False, cuda=options)
            with rig.engine(tuning) as engine:
                model = rig.load(engine, 0)
                found = _speed_of(rig, engine, model, rig.large, 2)
                made = engine.infer(model, crops, windows)[:2]
            row |= found
            most = int(np.abs(made.astype(int) - wanted).max())
            row["most"] = most
            if most > MAX_DIFFERENCE:
                row["problem"] = "wrong faces"
            elif float(found["ms a frame"]) < quickest:
                quickest = float(found["ms a frame"])
                rig.prefer(options)
        except Exception as error:  # one way may not work at all
            row["problem"] = f"{type(error).__name__}: {str(error)[:200]}"
        yield row
        if rig.time_is_up():
            return


def speed(rig: Rig) -> Iterator[Row]:
    """Yield rows with the time of calls on the device of ``rig``, for Lipwire's kernels and for
    ONNX Runtime, for several batch sizes and numbers of streams; then rows for an ONNX Runtime
    session of the unchanged network, with float32 arrays in and out. Where Lipwire's
    kernels or ONNX Runtime do not run there, one row with a ``problem`` is in place of theirs;
    without ONNX Runtime that session has no rows. Ends early when the rig's time is up.

    ONNX Runtime is measured with fewer batch sizes and streams, because each of its sessions takes
    seconds to open.
    """
    for road in ROADS:
        few = rig.quick or road == ONNX
        sizes = (1, 4, rig.large) if few else rig.sizes
        streams = 2 if few else 4
        tuning = Tuning(streams=streams, batch_sizes=tuple(sorted({*sizes})), cuda=rig.options)
        try:
            with rig.loaded(road, tuning) as (engine, model):
                for batch, callers in itertools.product(reversed(tuning.batch_sizes), (1, 2, 4)):
                    if callers > (streams if batch in (4, rig.large) else 1):
                        continue
                    yield {
                        "road": road,
                        "precision": model.precision,
                        "batch": batch,
                        "streams": callers,
                        **_speed_of(rig, engine, model, batch, callers),
                    }
                    if rig.time_is_up():
                        return
        except OtherRoad as error:
            yield {"road": road, "problem": str(error)}
    if rig.onnx_problem() is not None:
        return
    for batch in (1, rig.large):
        yield {
            "road": "ONNX Runtime, a session of the network, float32 arrays in and out",
            "precision": "single",
            "batch": batch,
            "streams": 1,
            "ms a frame": round(_session_ms(rig, batch) / batch, 4),
        }


def _speed_of(rig: Rig, engine: Engine, model: Model, batch: int, callers: int) -> Row:
    crops, windows = inputs(batch)
    calls = called(rig, callers, lambda _: engine.infer(model, crops, windows))
    frames = len(calls.times_s) * batch
    return {
        "ms a frame": round(calls.elapsed_s / frames * 1e3, 4),
        "frames/s": round(frames / calls.elapsed_s),
        "p50 ms a call": round(calls.median_ms, 3),
        "p99 ms a call": round(percentile(calls.times_s, 99) * 1e3, 3),
    }


def plain(rig: Rig) -> Iterator[Row]:
    """Yield rows with the time for each frame of a call in one stream of ONNX Runtime on the device
    of ``rig``, once with the weights given as inputs and once with the weights as constants inside
    the graph. Ends early when the rig's time is up."""
    memory = rig.gpu_memory()
    for precision in PRECISIONS:
        model = rig.gpu_model(0, precision)
        if model is None:
            continue
        graph = read_gpu_graph(rig.compiled(0, for_gpu=True), model.graphs["pixels"])
        image = ImageFile(rig.compiled(0, for_gpu=True), model).image
        fed = model.graphs["pixels"].weights
        ways = {
            "weights fed": (
                Architecture({"pixels": graph}, {"pixels": fed}, image.size, precision),
                image,
            ),
            "weights inside": (
                Architecture(
                    {"pixels": with_constants(graph, fed, image)}, {"pixels": ()}, 256, precision
                ),
                np.zeros(256, np.uint8),
            ),
        }
        for batch in (1, rig.large):
            for name, (architecture, weights) in ways.items():
                call_ms = _stream_ms(rig, memory, architecture, weights, batch)
                yield {
                    "precision": precision,
                    "batch": batch,
                    "way": name,
                    "ms a frame": round(call_ms / batch, 4),
                }
                if rig.time_is_up():
                    return


def with_constants(graph: bytes, weights: tuple[StoredWeight, ...], image: UInt8Array) -> bytes:
    """Return the serialised ONNX model ``graph`` with its weights, which are inputs, made
    constants. ``weights`` names these inputs, with their shapes, types and offsets in ``image``,
    (n,) uint8, which contains their values: the weights of one avatar."""
    model = onnx.load_from_string(graph)
    names = {weight.name for weight in weights}
    kept = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for weight in weights:
        dtype = np.dtype(weight.element_type)
        end = weight.offset_bytes + int(np.prod(weight.shape)) * dtype.itemsize
        values = image[weight.offset_bytes : end].view(dtype).reshape(weight.shape)
        model.graph.initializer.append(numpy_helper.from_array(values, weight.name))
    return bytes(model.SerializeToString())


class _Array:
    """Weights that are in memory already."""

    def __init__(self, values: UInt8Array) -> None:
        self._values = values
        self.size_bytes = values.size

    def write(self, image: UInt8Array) -> None:
        image[:] = self._values


def _stream_ms(
    rig: Rig, memory: Memory, architecture: Architecture, weights: UInt8Array, batch: int
) -> float:
    """A call of a stream by itself, median."""

    def open_(of: Architecture, form: Form, frames: int, stream: int) -> Any:
        level: Optimisation = "full" if rig.options.fuse else "basic"
        options = session_options(threads=1, optimisation=level)
        options.add_free_dimension_override_by_name(BATCH, frames)
        cuda = replace(rig.options, stream=stream, tf32=of.precision == "half")
        return open_session(of.graphs[form], options, rig.device_of_sessions, cuda)

    crops, windows = inputs(batch)
    mouths = np.empty_like(crops)
    weights_cache = WeightsCache(memory, device_bytes=1 << 34)
    held = weights_cache.add(_Array(weights))
    stream = GpuStream(0, memory, open_, record=rig.options.graphs)
    try:
        calls = called(
            rig,
            1,
            lambda _: stream.run(
                weights_cache, architecture, held, "pixels", batch, crops, windows, mouths
            ),
        )
    finally:
        stream.close()
        weights_cache.close()
    return calls.median_ms


def _session_ms(rig: Rig, batch: int) -> float:
    """A call of a plain session of the network's file, median."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(rig.source(0)), options, providers=providers(rig.device_of_sessions)
    )
    _, windows = inputs(batch)
    visual = np.random.default_rng(0).random((batch, 6, MOUTH_PX, MOUTH_PX), np.float32)
    feeds = {"input": visual, "audio": windows}
    calls = called(rig, 1, lambda _: session.run(None, feeds))
    return calls.median_ms
