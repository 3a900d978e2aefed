"""From a trained network to an avatar package: an ONNX file, the idle loop, what judges them."""

import argparse
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
import torch
import yaml
from torch import nn

from lipwire.avatars import validate_package
from lipwire.compose import VideoWriter
from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    FPS,
    MOUTH_PX,
    AvatarInvalid,
)
from lipwire.domain.newfiles import new_folder, new_path
from lipwire.engine import inspect_model
from lipwire.evaluation import (
    CONTROLS_TENSOR,
)
from lipwire.training.audio_model import ENCODER, HEAD, load_head
from lipwire.training.checkpoint import load_checkpoint
from lipwire.training.dataset import read_base, read_rectangles
from lipwire.training.evaluation_material import write_evaluation
from lipwire.training.stages import run_stage
from lipwire.training.train_unet import network_from_state
from lipwire.training.unet import Clipped, LipUNet

OPSET: Final = 17
LOOP_CRF: Final = 10
"""x264's quality of the idle loop: hard to tell from the frames, a few megabytes."""


def export_network(network: LipUNet, path: Path) -> None:
    """Write ``network``, which has to have its audio branch (``LipUNet.audio_branch``), as the ONNX
    file ``path``. The network is left in the mode, evaluation or training, that it had.

    The file has the inputs ``input`` (N, 6, 320, 320), the crop in [0, 1] with its masked copy, and
    ``audio`` (N, 32, 16, 16), and the output ``output`` (N, 3, 320, 320) in [0, 1]; float32, any N.
    The output of the audio branch is called ``mouth_controls`` in it.

    Raises ValueError without an audio branch, AvatarInvalid where ONNX Runtime's output differs
    from PyTorch's by more than 0.002, or the engine refuses the file, and OSError where it cannot
    be written; what was at ``path`` then stays.
    """
    write_network(Clipped(network.to(memory_format=torch.contiguous_format)), path)


def write_network(network: nn.Module, path: Path) -> None:
    """Write ``network``, a module that maps (crop with its masked copy, audio windows) to mouths in
    [0, 1], as an ONNX file ``path`` of the form that ``export_network`` describes. The module is
    left in evaluation mode.

    Raises AvatarInvalid where ONNX Runtime's output differs from PyTorch's by more than 0.002, or
    the engine refuses the file, and OSError where it cannot be written; what was at ``path`` then
    stays.
    """
    shipped = network.eval()
    generator = torch.Generator().manual_seed(0)
    crop = torch.rand(2, 6, MOUTH_PX, MOUTH_PX, generator=generator)
    audio = torch.randn(2, *AUDIO_WINDOW_SHAPE, generator=generator)
    with new_path(path) as partial:
        with torch.no_grad(), warnings.catch_warnings():
            # The newer exporter, which PyTorch recommends, needs onnxscript.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                shipped,
                (crop, audio),
                str(partial),
                opset_version=OPSET,
                input_names=["input", "audio"],
                output_names=["output"],
                dynamic_axes={name: {0: "batch"} for name in ("input", "audio", "output")},
                dynamo=False,
            )
            expected = shipped(crop, audio).numpy()
        model = onnx.load(str(partial))
        _name_controls(model.graph)
        onnx.save(model, str(partial))
        session = ort.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {"input": crop.numpy(), "audio": audio.numpy()})
        worst = float(np.abs(made - expected).max())
        if worst > 2e-3:
            raise AvatarInvalid(f"the exported network differs by {worst:.4f}; allowed is 0.002")
        inspect_model(partial)


def _name_controls(graph: onnx.GraphProto) -> None:
    """Call the last output of the audio branch ``mouth_controls``, for whoever wants to paint from
    controls. PyTorch names tensors after the module that makes them."""
    names = [name for node in graph.node for name in node.output if "/audio_branch/" in name]
    if not names:
        return
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                if name == names[-1]:
                    values[place] = CONTROLS_TENSOR


@dataclass(frozen=True, slots=True)
class PackageParts:
    """Where the parts of a package come from: the studio folder (base frames, rectangles, held-out
    sequences), the checkpoint of the mouth renderer (``renderer``), and the folder of the training
    run of the audio encoder and its head (``audio``). Also the texts of the package's manifest."""

    studio: Path
    """The studio folder: base frames, rectangles, held-out sequences."""
    renderer: Path
    """Checkpoint of the mouth renderer."""
    audio: Path
    """Run folder of the audio encoder and its head."""
    name: str = "demo"
    description: str = "A rendered character, made wholly by this project's own code."
    licence: str = "Apache-2.0"
    consent: str = "Nobody is shown: the character is computer generated."


def write_package(parts: PackageParts, out: Path) -> None:
    """Make the package folder ``out`` (replaced where it is there) from trained parts, and check
    that it is a valid package, for which every frame is decoded.

    Raises InvalidInput or AvatarInvalid when a part is missing or does not fit, StorageFailed when
    its video cannot be written, and OSError when a file is missing or cannot be written; ``out`` is
    then as it was.
    """
    with new_folder(out) as partial:
        (partial / "checkpoint").mkdir()
        head = load_head(parts.audio / HEAD)
        network = network_from_state(load_checkpoint(parts.renderer), head)
        export_network(network, partial / "checkpoint" / "model_best.onnx")
        shutil.copyfile(parts.audio / ENCODER, partial / "checkpoint" / ENCODER)
        write_loop(parts.studio, partial)
        write_evaluation(parts.studio, partial / "evaluation")
        settings = {
            "name": parts.name,
            "description": parts.description,
            "licence": parts.licence,
            "consent": parts.consent,
            "fps": FPS,
            "crop_border": 4,
            "colour_order": "bgr",
        }
        (partial / "avatar.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        problems = [p.message for p in validate_package(partial) if p.severity == "error"]
        if problems:
            raise AvatarInvalid(f"the package is not valid: {problems[0]}")


def write_loop(studio: Path, package: Path) -> None:
    """Write ``crop_rects.json`` and ``source_video.mp4`` into the folder ``package``, which has to
    exist, from the rectangles and base frames of the studio folder ``studio``. Raises InvalidInput
    where one of those is missing or damaged, StorageFailed where the video cannot be written,
    OSError where the rectangles cannot."""
    rectangles = read_rectangles(studio / "crop_rects.json")
    listed = [[box.x1, box.y1, box.x2, box.y2] for box in rectangles]
    (package / "crop_rects.json").write_text(json.dumps(listed) + "\n")
    first = read_base(studio, 0)
    height, width = first.shape[:2]
    video = package / "source_video.mp4"
    with VideoWriter(video, width, height, FPS, preset="slower", crf=LOOP_CRF) as writer:
        for frame in range(len(rectangles)):
            writer.write_frame(read_base(studio, frame))


def main(arguments: list[str] | None = None) -> int:
    """Make a package from trained networks: ``python -m lipwire.training.export STUDIO
    RENDERER_CHECKPOINT AUDIO_RUN OUT``. Return the exit code: 0 when the package is made, 1 where a
    LipwireError was raised, such as InvalidInput, AvatarInvalid or StorageFailed (its message is
    printed), and 130 where Ctrl-C stopped it. Other errors are passed on, such as OSError where a
    file is missing.

    STUDIO is the studio folder, with base frames, rectangles and held-out sequences;
    RENDERER_CHECKPOINT the checkpoint file of the network that makes mouths; AUDIO_RUN the folder
    of the training run of the audio encoder; and OUT the package folder, which is replaced where it
    is there. ``--name`` gives the package's name, "demo" by default. ``arguments`` are those of the
    command line without the program; None takes them from there.
    """
    parser = argparse.ArgumentParser(description="Make an avatar package from trained parts.")
    parser.add_argument("studio", type=Path, help="studio folder")
    parser.add_argument("renderer", type=Path, help="checkpoint of the mouth renderer")
    parser.add_argument("audio", type=Path, help="run folder of the audio encoder")
    parser.add_argument("out", type=Path, help="the package folder to make")
    parser.add_argument("--name", default="demo")
    chosen = parser.parse_args(arguments)
    parts = PackageParts(chosen.studio, chosen.renderer, chosen.audio, name=chosen.name)
    return run_stage(lambda: write_package(parts, chosen.out))


if __name__ == "__main__":
    raise SystemExit(main())
