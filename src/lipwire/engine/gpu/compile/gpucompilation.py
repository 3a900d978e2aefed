"""From a network's ONNX file to the folder that the engine loads onto a GPU.

It is made after the processor's (``engine.compile``), whose mouths it is compared with, and only
where a GPU is to run the network.
"""

from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.domain import AvatarInvalid, StorageFailed, UInt8Array
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.optimising import optimise
from lipwire.engine.compile.sourcemodel import damage_refused, read_model
from lipwire.engine.compile.wrapping import wrap
from lipwire.engine.cpu.processor import Processor
from lipwire.engine.forms import FACE, SPEECH
from lipwire.engine.gpu.compile.gpugraphs import build_for_gpu, hard_inputs
from lipwire.engine.gpu.liftedgraphs import GpuGraphs
from lipwire.engine.gpu.store.gpufiles import gpu_files, write_gpu
from lipwire.engine.graphs import Precision
from lipwire.engine.runtime import first_line
from lipwire.engine.store.modelfiles import Manifest, read_manifest
from lipwire.engine.store.runtimekey import gpu_runtime_key

DEFAULT_PRECISIONS: Final[tuple[Precision, ...]] = ("half",)


def compile_for_gpu(
    source: Path,
    compiled: Path,
    target: Path,
    precisions: Collection[Precision] = DEFAULT_PRECISIONS,
) -> None:
    """Compile the ONNX file ``source`` for GPUs into the existing, empty folder ``target``.

    ``compiled`` is the folder that ``compile_model`` filled for the same file. ``precisions`` are
    "half", "single" or both; the network is compiled in those that it is fit for. Where it is not
    fit for half precision it is compiled in single precision instead, and where it is fit for
    neither, the files say so, and ``Engine.load`` has it run on the processor.

    Takes about ten inferences. Raises NotFound where ``source`` or ``compiled`` is missing,
    AvatarInvalid where either is damaged or they do not belong together, StorageFailed where
    ``target`` cannot be written. On any error, an interruption included, ``target`` is left as it
    was.
    """
    label = source.name
    manifest = read_manifest(compiled)
    model = read_model(source)
    if model.sha256 != manifest.source_sha256:
        raise AvatarInvalid(f"{label}: was changed after it was compiled for the processor")
    with damage_refused(label):
        info = describe(model, label)
        wrapped = wrap(model.proto, info, "floats", manifest.fixed_batch)
    if not target.is_dir():
        raise StorageFailed(f"the compiled model's folder {target.name} is not there")
    done = False
    try:
        try:
            _, network = optimise(wrapped, label, target, "basic")
            mouths = _mouths(compiled, manifest)
            graphs = build_for_gpu(network, info, manifest.fixed_batch, mouths, precisions)
        except AvatarInvalid as error:
            graphs = GpuGraphs({}, dict.fromkeys(precisions, first_line(error)))
        write_gpu(
            target,
            graphs,
            runtime=gpu_runtime_key(),
            source_sha256=model.sha256,
            fixed_batch=manifest.fixed_batch,
        )
        done = True
    except OSError as error:
        raise StorageFailed(f"{label}: cannot be compiled: {error.strerror}") from None
    finally:
        if not done:
            for name in gpu_files():
                (target / name).unlink(missing_ok=True)


def _mouths(compiled: Path, manifest: Manifest) -> UInt8Array:
    """What the processor makes of ``hard_inputs``."""
    with closing(Processor(threads=None)) as processor:
        network = processor.load(compiled, manifest)
        made: list[UInt8Array] = []
        for batch in hard_inputs(manifest.fixed_batch):
            made.append(np.empty_like(batch[FACE]))
            processor.run(network, "pixels", batch[FACE], batch[SPEECH], made[-1])
    return np.concatenate(made)
