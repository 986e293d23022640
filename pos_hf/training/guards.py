"""What watches over a run's numbers: not finite ones, loss spikes. Which step is left out is in callbacks."""

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pos_hf.balancing import Objective
from pos_hf.data import PairedDataset
from pos_hf.errors import TrainingStopped
from pos_hf.run_folder import FAILURE_FILE

from .arguments import POSConfig

logger = logging.getLogger(__name__)

NAMED_IMAGES = 8
SPIKE_WINDOWS = 20  # logged windows whose median is the usual loss
FEWEST_WINDOWS = 5  # the median of fewer says little
SPIKE_FACTOR = 3.0


class FailureRecord:
    """What the last optimizer step with a gradient that is not finite was made of.

    It stays on the device, where every step selects between itself and what was kept: no step waits for it.

    Args:
        objectives: of the method, in the order of every row of numbers.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = objectives
        self._rows: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._kept: dict[int, tuple[Tensor, ...]] = {}  # by pairs in a step: the last one may be shorter

    def add(self, numbers: Sequence[Tensor], keys: Tensor | None = None) -> None:
        """Note a micro-batch's losses, or the gradients' squared norms of a step.

        Args:
            numbers: 0-d, one an objective.
            keys: of the micro-batch's pairs, int64 [B, 3] (see pos_hf.data.batches).
        """
        self._rows.append(torch.stack([number.double() for number in numbers]))
        if keys is not None:
            self._keys.append(keys)

    def close_step(self, skipped: Tensor, step: int) -> None:
        """Keep what was added since the last call if its step is skipped.

        Args:
            skipped: 0-d, 1 where the gradient is not finite, else 0.
            step: number of the optimizer step.
        """
        now: tuple[Tensor, ...] = (
            torch.full_like(skipped, step, dtype=torch.int64).view(1),
            torch.stack(self._rows),
            torch.cat(self._keys),
        )
        self._rows, self._keys = [], []
        pairs = len(now[-1])
        kept = self._kept.get(pairs, tuple(map(torch.zeros_like, now)))
        self._kept[pairs] = tuple(torch.where(skipped > 0, *both) for both in zip(now, kept, strict=True))

    def stop(
        self, num_steps: int, args: POSConfig, accelerator: Accelerator, dataset: PairedDataset
    ) -> TrainingStopped:
        """Write the diagnosis into the run's folder; every rank must call.

        `collate([dataset[tuple(key)] for key in keys])` is the batch again, for a student from a checkpoint.

        Args:
            num_steps: in a row that were skipped.
            args: of the run.
            accelerator: of the run.
            dataset: names the pairs.

        Returns:
            What to raise.
        """
        latest = max(self._kept.values(), key=lambda kept: kept[0].item())
        step, rows, keys = (accelerator.gather(value).tolist() for value in latest)
        columns = torch.tensor(rows).isfinite().all(0).tolist()
        broken = [name for name, finite in zip(self.objectives, columns, strict=True) if not finite]
        names = [dataset.names(tuple(key)) for key in keys]
        report = {
            "step": step[0],
            "not_finite": broken,
            "objectives": self.objectives,
            "losses_then_squared_gradient_norms": [[str(number) for number in row] for row in rows],
            "seed": args.seed,
            "keys": keys,
            "ids": names,
        }
        path = Path(args.output_dir) / FAILURE_FILE
        if args.should_save:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=1) + "\n")
        images = list(dict.fromkeys(id for row in names for id in row.values()))
        shown = ", ".join(images[:NAMED_IMAGES]) + (", ..." if len(images) > NAMED_IMAGES else "")
        return TrainingStopped(
            f"{num_steps} steps in a row had a gradient that is not finite, at last step "
            f"{step[0]} in the {' and the '.join(broken) or 'sum of the'} loss, with the images {shown} "
            f"({path} holds what replays it): lower learning_rate, or train with bf16 instead of fp16"
        )


class SkippedSteps:
    """Counts the steps that are not taken because their gradient is not finite, and stops a run of them.

    Args:
        objectives: of the method.
        args: of the run.
        accelerator: of the run.
        dataset: names the pairs of a step.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        args: POSConfig,
        accelerator: Accelerator,
        dataset: PairedDataset,
    ) -> None:
        self.record = FailureRecord(objectives)
        self.args, self.accelerator, self.dataset = args, accelerator, dataset
        self.norm = torch.zeros((), device=args.device)
        """Of the gradient that the optimizer is about to see."""
        self.in_a_row = torch.zeros((), device=args.device)
        self.longest = torch.zeros((), device=args.device)

    def close_step(self, step: int) -> Tensor:
        """Count a step before the optimizer takes it, without a host sync.

        Args:
            step: its number.

        Returns:
            0-d, 1 where its gradient is not finite, else 0.
        """
        skipped = (~self.norm.isfinite()).float()
        self.in_a_row = (self.in_a_row + 1) * skipped
        self.longest = torch.maximum(self.longest, self.in_a_row)
        self.record.close_step(skipped, step)
        return skipped

    def stop_if_too_many(self) -> None:
        """Stop where `max_skipped_steps` in a row were not taken; a host sync, for when a log is due."""
        if self.longest.item() >= self.args.max_skipped_steps:
            raise self._failure(int(self.longest))

    def stop_if_not_finite(self, models: Mapping[str, nn.Module], step: int, fewest: int) -> None:
        """Stop before what is not finite is scored or kept; in one transfer, apart from the training step.

        Args:
            models: to look at, by name.
            step: optimizer steps done.
            fewest: steps in a row, up to now, that are too many.

        Raises:
            TrainingStopped: weights are not finite, or too many steps were not taken.
        """
        broken = torch.stack([~is_finite(model) for model in models.values()]).double()
        longest, in_a_row = (number.double()[None] for number in (self.longest, self.in_a_row))
        numbers = self.accelerator.reduce(torch.cat([broken, longest, in_a_row]), "mean").tolist()
        if numbers[-2] >= self.args.max_skipped_steps or numbers[-1] >= fewest:
            raise self._failure(int(max(numbers[-2:])))
        for name, share in zip(models, numbers, strict=False):
            if share:
                raise TrainingStopped(
                    f"the weights of the {name} are not finite after step {step}: lower learning_rate or add "
                    "warmup_steps; what was saved before is as it was"
                )

    def _failure(self, num_steps: int) -> TrainingStopped:
        return self.record.stop(num_steps, self.args, self.accelerator, self.dataset)


def is_finite(model: nn.Module) -> Tensor:
    """Whether all weights and statistics are finite: 0-d bool, without a host sync.

    Args:
        model: of a sharded one this rank's part is looked at.
    """
    values = [
        value.to_local() if isinstance(value, DTensor) else value
        for value in (*model.parameters(), *model.buffers())
    ]
    return torch.stack([value.isfinite().all() for value in values]).all()


def count_bad_samples(batch: Mapping[str, Mapping[str, Tensor]], num_processes: int) -> dict[str, Tensor]:
    """How many rows a batch passed over; the mean over the ranks is the count of all of them.

    Args:
        batch: with `bad_samples` int64 [B] where rows may be skipped.
        num_processes: ranks.

    Returns:
        `{"bad_samples": 0-d}`, or nothing where rows are not skipped.
    """
    counts = [views["bad_samples"].sum() for views in batch.values() if "bad_samples" in views]
    return {"bad_samples": torch.stack(counts).sum() * num_processes} if counts else {}


def warn_of_spike(history: Sequence[Mapping[str, Any]], loss: float, step: int) -> None:
    """Warn when a logged loss is far above the usual one.

    Args:
        history: earlier entries of the log.
        loss: the mean of the newest window.
        step: number of the optimizer step.
    """
    usual = [entry["loss"] for entry in history if "loss" in entry][-SPIKE_WINDOWS:]
    if len(usual) < FEWEST_WINDOWS:
        return
    median = statistics.median(usual)
    if not loss <= SPIKE_FACTOR * median:  # so that a loss that is no number counts
        logger.warning(
            "step %d: the loss is %.4g, and the median of the %d windows before was %.4g: if it stays there, "
            "lower learning_rate or add warmup_steps",
            *(step, loss, len(usual), median),
        )
