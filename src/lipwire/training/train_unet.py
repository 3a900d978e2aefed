"""Training the mouth renderer: resumable, watchable, the same result for the same seed.

A *run folder* holds ``last.pt`` (everything needed to go on), ``samples/`` (pictures to look at:
input, output, truth, error) and ``log.jsonl``. Starting a run whose folder has a checkpoint goes on
from it, with whatever the dataset holds by now.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from lipwire.domain import InvalidInput, UInt8Array
from lipwire.training.checkpoint import load_checkpoint, save_checkpoint
from lipwire.training.dataset import Batch, CropDataset, PairDataset
from lipwire.training.losses import change_weights, peak_signal_to_noise_db, picture_loss
from lipwire.training.stages import run_stage
from lipwire.training.unet import LipUNet, UNetConfig

HELD_OUT_EVERY = 20
"""One sample in so many is never trained on: it measures."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of a training run; the network itself is a ``UNetConfig``.

    ``steps`` is how many steps there are in all, ``batch_size`` how many samples each has.
    ``learning_rate`` is the highest, after ``warmup_steps``; ``ema_decay`` (below 1) is how much of
    the averaged weights a step keeps. With ``focus`` (top, left, height and width, multiples of 16,
    of a part of the crop) four in five of the first 65 % of the steps see only that part. ``seed``
    decides about all that is random. ``checkpoint_every``, ``sample_every`` and ``log_every`` are
    in steps. The defaults are the demo avatar's: 38 dB on pairs held out, 25 minutes on one core at
    AVX512.
    """

    steps: int = 13_000
    batch_size: int = 4
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    focus: tuple[int, int, int, int] | None = None
    """Top, left, height and width, multiples of 16, of the part of the crop that is hard: while the
    learning rate is high, four steps in five see only this part, moved about by a block, and take
    as much less time as it is smaller."""
    seed: int = 1
    checkpoint_every: int = 500
    sample_every: int = 500
    log_every: int = 50


def bfloat16_is_fast() -> bool:
    """Return whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX), as far as
    PyTorch says."""
    capability: dict[str, Any] = {}
    if hasattr(torch.cpu, "get_capabilities"):
        capability = torch.cpu.get_capabilities()
    if capability:
        return bool(capability.get("avx512_bf16") or capability.get("amx_bf16"))
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check is not None and check())


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of ``step``, counted from 0: a linear warm-up to
    ``settings.learning_rate``, then a cosine down to a fiftieth of it."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return settings.learning_rate * (0.02 + 0.98 * cosine)


FOCUS_SHARE = 0.8
FOCUS_UNTIL = 0.65
"""Part of the steps after which all of them see everything."""


def window_at(
    step: int,
    window: tuple[int, int, int, int],
    settings: TrainSettings,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Return the part of the crop that ``step``, counted from 0, trains on, as (top, left, height,
    width) in pixels.

    This is ``window``, which has the same form. Where ``settings.focus`` is given, it is, in four
    of five of the first 65 % of all steps, a part of ``window`` that has the size of the focus and
    lies up to 16 pixels from it each way. Which steps these are, and how far the part is moved, is
    drawn from ``rng``.
    """
    focus = settings.focus
    if focus is None or step >= FOCUS_UNTIL * settings.steps or rng.random() >= FOCUS_SHARE:
        return window
    top, left = (
        int(np.clip(start + 16 * rng.integers(-1, 2), first, first + length - size))
        for start, size, first, length in zip(
            focus[:2], focus[2:], window[:2], window[2:], strict=True
        )
    )
    return top, left, focus[2], focus[3]


def to_network(batch: Batch, window: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (crop, condition, target) of ``batch`` as tensors for the network, cut to ``window``,
    (top, left, height, width) in pixels of the crop.

    The crop is (B, 6, height, width) and the target (B, 3, height, width), float32 in [0, 1]; the
    condition is that of the batch, (B, K) controls or (B, 32, 16, 16) windows, float32.
    """
    top, left, height, width = window
    inside = (slice(None), slice(top, top + height), slice(left, left + width))
    crop = torch.from_numpy(np.concatenate([batch.real[inside], batch.masked[inside]], axis=3))
    target = torch.from_numpy(np.ascontiguousarray(batch.target[inside]))
    return (
        crop.permute(0, 3, 1, 2).float().div_(255.0),
        torch.from_numpy(batch.condition),
        target.permute(0, 3, 1, 2).float().div_(255.0),
    )


def _pictures(values: Tensor) -> UInt8Array:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    pixels = (values.clamp(0, 1) * 255).round().byte()
    return np.asarray(pixels.permute(0, 2, 3, 1).contiguous().numpy())


class UNetRun:
    """One training run of a ``LipUNet``: the ``network``, the running ``average`` of its weights,
    the optimiser, and the ``folder`` in which they are kept. ``step`` is how many steps were done.
    One sample in HELD_OUT_EVERY is held out: not trained on, but used by ``measure``. For one
    thread at a time."""

    def __init__(
        self,
        dataset: CropDataset,
        folder: Path,
        config: UNetConfig,
        settings: TrainSettings,
        audio_branch: nn.Module | None = None,
    ) -> None:
        """The network of ``config`` is trained on ``dataset`` with ``settings``, and kept in
        ``folder``, and the run continues from the checkpoint in ``folder`` if there is one; nothing
        is trained or written yet. With ``audio_branch``, which is trained too, the dataset's
        conditions are windows, else they are controls. Sets PyTorch's seed. Raises InvalidInput for
        a dataset of fewer than two samples, and where the checkpoint is damaged or of another
        network."""
        if len(dataset) < 2:
            raise InvalidInput(f"a dataset of {len(dataset)} samples; training needs at least 2")
        everything = np.arange(len(dataset))
        held = everything % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        self.dataset = dataset
        self.training_indices = everything[~held]
        self.held_out_indices = everything[held] if held.any() else everything[-1:]
        torch.manual_seed(settings.seed)
        self.folder = folder
        self.settings = settings
        self.network = LipUNet(config, audio_branch).to(memory_format=torch.channels_last)
        self.average = {name: value.clone() for name, value in self._weights().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=1e-4
        )
        self.bfloat16 = bfloat16_is_fast()
        self.step = 0
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """The path of the run's checkpoint, ``last.pt`` in its folder, whether the file exists or
        not."""
        return self.folder / "last.pt"

    def _weights(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def _resume(self) -> None:
        state = load_checkpoint(self.checkpoint)
        if state["config"] != self.network.config.to_dict():
            raise InvalidInput(
                f"{self.checkpoint} holds another network ({state['config']}) than asked for "
                f"({self.network.config.to_dict()})"
            )
        self.network.load_state_dict(state["weights"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def save(self) -> None:
        """Write the run's checkpoint, which has everything that is needed to continue. Raises
        StorageFailed where it cannot be written; the last one then stays."""
        save_checkpoint(
            self.checkpoint,
            {
                "config": self.network.config.to_dict(),
                "weights": self._weights(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
            },
        )

    def _predict(self, crop: Tensor, condition: Tensor, at: tuple[int, int] = (0, 0)) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            branch = self.network.audio_branch
            code = condition if branch is None else branch(condition)
            output = self.network.forward_window(crop, code, at)
        return output.float()

    def advance(self) -> float:
        """Train for one step, on one batch, count the step, and return its loss (``picture_loss``).
        Nothing is written."""
        # The generator depends on the step alone: a resumed run draws what an unbroken one would.
        rng = np.random.default_rng([self.settings.seed, self.step])
        indices = rng.choice(self.training_indices, self.settings.batch_size)
        whole = self.network.config.window
        window = window_at(self.step, whole, self.settings, rng)
        crop, condition, target = to_network(self.dataset.batch(indices, rng), window)
        crop = crop.contiguous(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.step, self.settings)
        base = crop[:, :3] if self.network.config.base == "real" else crop[:, 3:]
        output = self._predict(crop, condition, (window[0] - whole[0], window[1] - whole[1]))
        loss = picture_loss(output, target, change_weights(base, target))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        # Early on the average would be mostly the random start.
        decay = min(self.settings.ema_decay, (1.0 + self.step) / (10.0 + self.step))
        for name, value in self._weights().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - decay)
            else:
                self.average[name].copy_(value)
        return float(loss.detach())

    @torch.no_grad()
    def measure(self, limit: int = 48) -> tuple[float, UInt8Array]:
        """Return (how near the averaged network's pictures are to the truth, a picture to look at).

        The first is the mean peak signal to noise ratio, in dB, of up to ``limit`` (1 or more)
        held-out samples, over the pixels that move. The second is (rows * H, 4 * W, 3) uint8 BGR,
        where H and W are those of the network's window: of the first six samples a row each of
        input, output, truth and error (x 4). Training continues afterwards as if this had not been
        called.
        """
        present = {name: value.clone() for name, value in self._weights().items()}
        self.network.load_state_dict(self.average)
        try:
            window = self.network.config.window
            ratios: list[float] = []
            rows: list[UInt8Array] = []
            for start in range(0, min(limit, len(self.held_out_indices)), 8):
                indices = self.held_out_indices[start : start + 8][: limit - start]
                rng = np.random.default_rng([self.settings.seed, start])
                batch = self.dataset.batch(indices, rng)
                crop, condition, target = to_network(batch, window)
                output = self._predict(crop, condition)
                base = crop[:, :3] if self.network.config.base == "real" else crop[:, 3:]
                weights = change_weights(base, target)
                for one in range(len(indices)):
                    part = slice(one, one + 1)
                    ratios.append(
                        peak_signal_to_noise_db(output[part], target[part], weights[part])
                    )
                given, made, truth = (_pictures(part) for part in (crop[:, :3], output, target))
                for one in range(min(len(indices), 6 - len(rows))):
                    error = cv2.convertScaleAbs(cv2.absdiff(made[one], truth[one]), alpha=4)
                    shown = [given[one], made[one], truth[one], error]
                    rows.append(np.concatenate(shown, axis=1))
        finally:
            self.network.load_state_dict(present)
        return float(np.mean(ratios)), np.concatenate(rows)

    def train(
        self,
        *,
        progress: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> Path:
        """Train until the last step of the settings, or until ``stop()``, which is called before
        each step, returns True; return the path of the checkpoint, which is then written.
        ``progress`` shows a bar in the terminal.

        During training checkpoints are written, pictures into the folder ``samples``, and lines of
        JSON into ``log.jsonl``, both in the run's folder, as often as the settings say. Raises
        StorageFailed where a checkpoint cannot be written, OSError where the folders or the log
        cannot.
        """
        settings = self.settings
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "samples").mkdir(exist_ok=True)
        columns = (
            TextColumn("mouth renderer"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        psnr_db, losses, since = math.nan, [], time.monotonic()
        with Progress(*columns, disable=not progress) as bar:
            task = bar.add_task("", total=settings.steps, completed=self.step, figures="")
            while self.step < settings.steps and not stop():
                losses.append(self.advance())
                last = self.step == settings.steps
                if self.step % settings.sample_every == 0 or last:
                    psnr_db, sheet = self.measure()
                    cv2.imwrite(str(self.folder / "samples" / f"{self.step:06d}.png"), sheet)
                if self.step % settings.checkpoint_every == 0 or last:
                    self.save()
                if self.step % settings.log_every == 0 or last:
                    now = time.monotonic()
                    rate = len(losses) * settings.batch_size / (now - since)
                    figures = {
                        "step": self.step,
                        "loss": round(float(np.mean(losses)), 5),
                        "held_out_psnr_db": None if math.isnan(psnr_db) else round(psnr_db, 2),
                        "samples_per_s": round(rate, 1),
                    }
                    with (self.folder / "log.jsonl").open("a") as log:
                        log.write(json.dumps(figures) + "\n")
                    shown = (
                        f"loss {figures['loss']:.4f}  held-out {psnr_db:.1f} dB  "
                        f"{rate:.0f} samples/s"
                    )
                    bar.update(task, completed=self.step, figures=shown)
                    losses, since = [], now
        self.save()
        return self.checkpoint

    def averaged_network(self) -> LipUNet:
        """Return a new network with the averaged weights, float32, in evaluation mode, ready for
        ``export_network``; without an audio branch where the run has none. Nothing of the run is
        changed."""
        return network_from_state(
            {"config": self.network.config.to_dict(), "average": self.average},
            deepcopy(self.network.audio_branch),
        )


def network_from_state(state: dict[str, Any], audio_branch: nn.Module | None = None) -> LipUNet:
    """Return the network of ``state``, what ``load_checkpoint`` returned for a run, with its
    averaged weights, in evaluation mode.

    ``audio_branch``, the part of the network that reads audio windows, becomes part of it. Of a run
    that was trained with one, it gets the run's weights and has to be given; of a run that was
    trained from controls, it keeps its own, and None leaves it out. Raises InvalidInput where the
    weights do not fit the network, for example where ``audio_branch`` is None but the run was
    trained with one.
    """
    network = LipUNet(UNetConfig.from_dict(state["config"]), audio_branch)
    # A run from controls has no audio branch; the one given here then keeps its own weights.
    missing, unexpected = network.load_state_dict(state["average"], strict=False)
    wrong = [name for name in missing if not name.startswith("audio_branch.")] + unexpected
    if wrong:
        raise InvalidInput(
            f"the checkpoint does not fit the network: {', '.join(sorted(wrong)[:5])}"
        )
    return network.eval()


def main(arguments: list[str] | None = None) -> int:
    """Train the network that makes mouths (``LipUNet``) from mouth controls: ``python -m
    lipwire.training.train_unet STUDIO RUN``. STUDIO is the studio folder, with the training pairs
    (``pairs/pairs.json``) and ``crop_rects.json``; RUN is the run's folder, and training continues
    from its checkpoint where there is one. ``--help`` lists the options.

    Return the exit code: 0 when training is done, 1 where a LipwireError was raised, such as
    InvalidInput for a folder without pairs (its message is printed), and 130 where Ctrl-C stopped
    it. Other errors are passed on. ``arguments`` are those of the command line without the program;
    None takes them from there.
    """
    usual, network = TrainSettings(), UNetConfig()
    parser = argparse.ArgumentParser(description="Train the mouth renderer on a studio folder.")
    parser.add_argument("studio", type=Path, help="folder of rendered pairs")
    parser.add_argument("run", type=Path, help="run folder; goes on from its checkpoint")
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--batch-size", type=int, default=usual.batch_size)
    parser.add_argument("--widths", type=int, nargs=4, default=network.widths)
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--sample-every", type=int, default=usual.sample_every)
    parser.add_argument("--threads", type=int, default=1, help="more only on an idle machine")
    chosen = parser.parse_args(arguments)

    def train() -> None:
        torch.set_num_threads(chosen.threads)
        dataset = PairDataset(chosen.studio)
        settings = TrainSettings(
            steps=chosen.steps,
            batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            seed=chosen.seed,
            focus=dataset.moving_window(0.4),
            sample_every=chosen.sample_every,
            checkpoint_every=chosen.sample_every,
        )
        config = UNetConfig(widths=tuple(chosen.widths), code_size=dataset.code_size)
        UNetRun(dataset, chosen.run, config, settings).train()

    return run_stage(train)


if __name__ == "__main__":
    raise SystemExit(main())
