"""From a network's ONNX file to the folder that the engine loads.

A network that does not come out bit for bit as ONNX Runtime would run it by itself is not shared:
it is stored whole and gets a session of its own. This is checked here, on every network, by running
both on the same noise. What a GPU needs is compiled apart from this (``engine.gpu.compile``).
"""

from pathlib import Path

import onnx

from lipwire.domain import AvatarInvalid, Float32Array, Form, StorageFailed
from lipwire.engine.compile.inspection import ModelInfo, describe
from lipwire.engine.compile.optimising import build, check_sizes, optimise, try_out
from lipwire.engine.compile.sourcemodel import damage_refused, read_model
from lipwire.engine.compile.wrapping import pixels_of, wrap
from lipwire.engine.forms import FORMS
from lipwire.engine.graphs import BuiltGraph
from lipwire.engine.store.modelfiles import MANIFEST_NAME, WEIGHTS_NAME, write_compiled
from lipwire.engine.store.runtimekey import runtime_key


def compile_model(source: Path, target: Path) -> None:
    """Compile the network in the ONNX file ``source`` for the processor, into the existing, empty
    folder ``target``, which ``Engine.load`` takes.

    The network has to take a face, (N, 6, 320, 320), and audio windows, (N, 32, 16, 16), and to
    return mouths, (N, 3, 320, 320), each float32 or float16. Takes about as long as five
    inferences. Raises NotFound where ``source`` is missing, AvatarInvalid where its inputs and
    output are others, it is damaged or cannot be run, StorageFailed where ``target`` is not there
    or cannot be written. On any error, an interruption included, ``target`` is left as it was.
    """
    label = source.name
    model = read_model(source)
    with damage_refused(label):
        info = describe(model, label)
    if not target.is_dir():
        raise StorageFailed(f"the compiled model's folder {target.name} is not there")
    done = False
    try:
        batch, floats, mouths = _build_floats(model.proto, info, label, target)
        with damage_refused(label):
            wrapped = wrap(model.proto, info, "pixels", batch)
        pixels = _build_pixels(wrapped, mouths[: batch or 1], label, target)
        graphs: dict[Form, BuiltGraph] = {"pixels": pixels, "floats": floats}
        write_compiled(
            target,
            graphs,
            runtime=runtime_key(),
            source_sha256=model.sha256,
            fixed_batch=batch,
            parameters=info.parameters,
        )
        done = True
    except OSError as error:
        raise StorageFailed(f"{label}: cannot be compiled: {error.strerror}") from None
    finally:
        if not done:
            graph_names = (f"{form}.onnx" for form in FORMS)
            for name in (MANIFEST_NAME, WEIGHTS_NAME, *graph_names):
                (target / name).unlink(missing_ok=True)


def _build_floats(
    model: onnx.ModelProto, info: ModelInfo, label: str, scratch: Path
) -> tuple[int | None, BuiltGraph, Float32Array]:
    """The batch that the network turns out to be fixed at, the form *floats*, and the mouths that
    it was tried with."""
    for batch in (info.fixed_batch, 1):
        with damage_refused(label):
            wrapped = wrap(model, info, "floats", batch)
            # Of both forms: what *pixels* adds makes nothing larger.
            check_sizes(wrapped, label)
        try:
            # Two frames where any number should do: some networks say so and then take only one.
            session, optimised = optimise(wrapped, label, scratch)
            mouths = try_out(session, "floats", batch or 2, label)
        except AvatarInvalid:
            if batch is not None:
                raise
        else:
            del session  # with the memory of its run
            # A frame alone has to be what it is in a batch, so that one frame is enough here.
            return batch, build(optimised, wrapped, "floats", mouths[: batch or 1]), mouths
    raise AssertionError("the last batch is a number")


def _build_pixels(
    wrapped: onnx.ModelProto, mouths: Float32Array, label: str, scratch: Path
) -> BuiltGraph:
    """The form *pixels*. ``mouths`` are those that the form *floats* made of the same noise."""
    session, optimised = optimise(wrapped, label, scratch)
    built = build(optimised, wrapped, "pixels", pixels_of(mouths))
    if built.reason:  # the layers may have been put together in another way in this form
        made = try_out(session, "pixels", len(mouths), label)
        built = build(optimised, wrapped, "pixels", made)
    return built
