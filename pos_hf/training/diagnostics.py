"""What a run says about its two gradients: sums on the device, read once per log. Nothing is decided here."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from pos_hf.balancing import POS, Gramian, Strategy, Weights

VARIANCES = ("supervised_norm", "unsupervised_norm")
COUNTS = ("degenerate_steps", "skipped_steps", "bad_samples")


class Diagnostics:
    """Statistics of a logging window, kept as float64 sums on the device until `read`.

    A value that is not finite (the cosine of a zero gradient) is left out of its mean.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one observation of each value.

        Args:
            values: 0-d tensors by the name they are logged under; one name has one value a step.
        """
        observed = torch.stack([value.detach().double() for value in values.values()])
        finite = observed.isfinite()
        kept = torch.where(finite, observed, 0)
        moments = torch.stack([finite.double(), kept, kept**2], dim=1)
        for name, row in zip(values, moments, strict=True):
            self._sums[name] = self._sums[name] + row if name in self._sums else row

    def add_step(self, gramian: Gramian, weights: Weights, strategy: Strategy) -> None:
        """Add what an optimizer step's Gramian and weights tell (the paper's Fig. 1 and 3).

        Args:
            gramian: of the unscaled gradients, global over ranks.
            weights: (w_s, w_u).
            strategy: what chose them.
        """
        self.add(
            {
                "cosine": gramian.cosine,
                "conflict_share": (gramian.cross < 0).double(),
                "min_cosine": gramian.min_cosine(*weights),
                "supervised_norm": gramian.supervised.sqrt(),
                "unsupervised_norm": gramian.unsupervised.sqrt(),
                "supervised_weight": weights[0],
                "unsupervised_weight": weights[1],
                "meo_gain": weights[0] + weights[1],
                "degenerate_steps": gramian.is_degenerate(*weights).double(),
            }
        )
        if isinstance(strategy, POS):
            self.add({"bounded_share": strategy.bound_holds(gramian).double()})

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Average over the window and all ranks, forget the window, and bring it to the host in one transfer.

        Args:
            accelerator: of the run; every rank must call.

        Returns:
            A mean for every name added, a variance for `VARIANCES`, a sum for `COUNTS`. Names without a
            finite value are absent.
        """
        if not self._sums:
            return {}
        moments = accelerator.reduce(torch.stack(list(self._sums.values())), "mean")
        statistics = {}
        for name, (count, total, square) in zip(self._sums, moments.tolist(), strict=True):
            if count == 0:
                continue
            mean = total / count
            statistics[name] = total if name in COUNTS else mean
            if name in VARIANCES:
                statistics[f"{name}_variance"] = max(square / count - mean**2, 0.0)
        self._sums = {}
        return statistics

    def state_dict(self) -> dict[str, Tensor]:
        """The unfinished window of this rank: float64 [3] (count, sum, sum of squares) by name."""
        return {name: sums.clone() for name, sums in self._sums.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Go on with the window that `state_dict` gave."""
        self._sums = dict(state_dict)
