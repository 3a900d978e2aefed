"""Teach the audio encoder and its head what the mouth does.

Step k's batch depends on (seed, k) alone, so a run that was stopped continues as if it had not.
"""

import argparse
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from lipwire.audio import mel_spectrogram
from lipwire.domain import AvatarInvalid, InvalidInput, StorageFailed
from lipwire.training.audio_model import ENCODER, HEAD, AudioModel, export_encoder
from lipwire.training.checkpoint import save_checkpoint
from lipwire.training.stages import run_stage
from lipwire.training.visemes import BITE, OPEN, PRESS, ROUND, TONGUE, WIDE
from studio.speech import Utterance, draw, load_split
from studio.speech.augment import warp_bands

CHECKPOINT: Final = "audio.pt"

_SMOOTH_WEIGHTS: Final = (3.0, 1.5, 1.5, 4.0, 2.0, 1.0)
"""How much an error of each control counts. Closures are what people notice first."""

PICTURE_WEIGHTS: Final = {OPEN: 3100.0, WIDE: 120.0, ROUND: 470.0, BITE: 66.0}
GAP_WEIGHT: Final = 10_500.0
"""Least squares over 240 pairs of mouths painted by the demo avatar's network, their controls apart
as a reading's were from the truth; the logarithms of both correlate with 0.96. `mouth_metric` draws
errors of its own and comes to 2900, 150, 650, 170 and 12,400 for the gap."""
PICTURE_FLOOR: Final = 11.0
"""Squared levels: the painting network's own error (37.8 dB)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A training run. The defaults take an hour and a half on one core of their own."""

    steps: int = 30_000
    batch: int = 4
    frames: int = 125
    learning_rate: float = 2e-3
    warm_up: int = 50
    averaging: float = 0.995
    save_every: int = 100
    seed: int = 0
    threads: int = 1
    """One: on a machine with other work, two threads wait for each other more than they gain."""
    half: bool = True
    """bfloat16 convolutions: about twice as fast on CPUs that have them."""


def batch_of(utterances: Sequence[Utterance], plan: Plan, step: int) -> tuple[Tensor, Tensor]:
    """Step's material: (batch, columns, 80) float32 and (batch, frames, 6) float32."""
    mels, controls = [], []
    for item in range(plan.batch):
        rng = np.random.default_rng((plan.seed, step, item))
        mixture = draw(utterances, plan.frames, rng)
        throat = float(rng.uniform(0.76, 1.3)) if rng.random() < 0.8 else 1.0
        mels.append(warp_bands(mel_spectrogram(mixture.pcm), throat))
        controls.append(mixture.controls)
    return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(controls))


def loss_of(logits: Tensor, true: Tensor) -> Tensor:
    """Error of the controls, of the lip gap, of how fast both move, and of the picture that they
    make; all (B, frames, 6) in.

    Contacts (press, bite, tongue) are also judged as yes or no, which pulls them to the ends; small
    errors count as squares, since absolute ones would leave out what is rare. The picture's is
    counted in decibels, where a frame far off weighs less than the many that are nearly right: it
    is sharp where the rest of the sum would settle on the mean of what might have been said.
    """
    made = torch.sigmoid(logits)
    weights = torch.tensor(_SMOOTH_WEIGHTS)
    error = nn.functional.smooth_l1_loss(made, true, beta=0.3, reduction="none") * weights
    contacts = [PRESS, BITE, TONGUE]
    entropy = nn.functional.binary_cross_entropy_with_logits(
        logits[..., contacts], true[..., contacts], reduction="none"
    )
    gap = nn.functional.smooth_l1_loss(_gap(made), _gap(true), beta=0.1, reduction="none")
    gap = gap * (1 + 2 * true[..., PRESS])
    speed = (made.diff(dim=1) - true.diff(dim=1)).square() * weights
    picture = torch.log1p(picture_error(made, true) / PICTURE_FLOOR)
    return (
        error.mean()
        + 0.3 * entropy.mean()
        + 1.5 * gap.mean()
        + 0.5 * speed.mean()
        + 0.2 * picture.mean()
    )


def picture_error(made: Tensor, true: Tensor) -> Tensor:
    """How far the mouths of two sets of controls (..., 6) lie apart, as painted: about the mean
    squared error of their pixels, in levels of 0-255; (...,).

    The jaw moves half of the face and counts most; a wide mouth changes few pixels.
    """
    apart = (made - true).square()
    weighed = sum(weight * apart[..., k] for k, weight in PICTURE_WEIGHTS.items())
    return weighed + GAP_WEIGHT * (_gap(made) - _gap(true)).square()


def _gap(controls: Tensor) -> Tensor:
    """`visemes.aperture`, with gradients."""
    return (
        controls[..., OPEN]
        * (1 - controls[..., PRESS])
        * (1 - 0.75 * controls[..., BITE])
        * (1 - 0.3 * controls[..., ROUND])
    )


class Training:
    """A run in a folder: the model, its running average, the optimizer, and how far it got."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Continue the run in ``folder`` if there is one (`AvatarInvalid`, `StorageFailed`)."""
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        self.plan = plan
        self.folder = folder
        self.model = AudioModel()
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(plan.averaging),
            use_buffers=True,
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), plan.learning_rate, weight_decay=0.01
        )
        self.step = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"cannot make the folder {folder}: {error.strerror}") from error
        if (folder / CHECKPOINT).exists():
            self._load(folder / CHECKPOINT)

    def run(self, utterances: Sequence[Utterance]) -> Generator[float]:
        """Train to the plan's last step, giving each loss; saves on the way and at the end."""
        with ThreadPoolExecutor(1, "speech") as ahead:
            coming = ahead.submit(batch_of, utterances, self.plan, self.step)
            while self.step < self.plan.steps:
                mels, controls = coming.result()
                if self.step + 1 < self.plan.steps:
                    coming = ahead.submit(batch_of, utterances, self.plan, self.step + 1)
                loss = self._advance(mels, controls)
                self.step += 1
                if self.step % self.plan.save_every == 0 or self.step == self.plan.steps:
                    self.save()
                yield loss

    def _advance(self, mels: Tensor, controls: Tensor) -> float:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.half):
            logits = self.model(mels, self.plan.frames)
        loss = loss_of(logits.float(), controls)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return float(loss.detach())

    def _rate(self) -> float:
        """Linear warm-up, then half a cosine down to a fiftieth."""
        plan = self.plan
        if self.step < plan.warm_up:
            return plan.learning_rate * (self.step + 1) / plan.warm_up
        part = (self.step - plan.warm_up) / max(1, plan.steps - plan.warm_up)
        return plan.learning_rate * (0.02 + 0.98 * (0.5 + 0.5 * float(np.cos(np.pi * part))))

    def save(self) -> None:
        """Checkpoint, and the average's ONNX encoder and head; each file whole or not at all."""
        save_checkpoint(
            self.folder / CHECKPOINT,
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )
        made: AudioModel = self.average.module
        save_checkpoint(self.folder / HEAD, made.head.state_dict())
        export_encoder(made.encoder, self.folder / ENCODER)

    def _load(self, path: Path) -> None:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.step = int(saved["step"])
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise AvatarInvalid(f"{path} is not a checkpoint of this training: {reason}") from error


def load_model(folder: Path) -> AudioModel:
    """The averaged model of a training folder, in evaluation mode."""
    if not (folder / CHECKPOINT).exists():
        raise InvalidInput(f"{folder} has no {CHECKPOINT}; train first")
    model: AudioModel = Training(Plan(), folder).average.module
    return model.eval()


def main(arguments: list[str] | None = None) -> int:
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m studio.train_audio", description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder of `python -m studio.speech`")
    parser.add_argument(
        "folder", type=Path, help="checkpoint and results; continued when it exists"
    )
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--batch", type=int, default=usual.batch)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--threads", type=int, default=usual.threads)
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    options = parser.parse_args(arguments)

    def train() -> None:
        plan = Plan(
            steps=options.steps,
            batch=options.batch,
            seed=options.seed,
            threads=options.threads,
            learning_rate=options.learning_rate,
        )
        training = Training(plan, options.folder)
        utterances = load_split(options.corpus, "train")
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            task = progress.add_task("training", total=plan.steps, completed=training.step)
            shown = 0.0
            for loss in training.run(utterances):
                shown = loss if not shown else 0.95 * shown + 0.05 * loss
                progress.update(task, advance=1, description=f"loss {shown:.4f}")
                if training.step % 50 == 0:
                    progress.console.print(f"step {training.step} loss {shown:.4f}")

    return run_stage(train)


if __name__ == "__main__":
    raise SystemExit(main())
