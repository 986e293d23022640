"""From the loss terms of a step to the one gradient that the optimizer sees (Eq. 4). No loss is made here."""

import contextlib

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pos_hf.balancing import Fixed, GradientPair, Gramian, Strategy, average_over_ranks, uniform
from pos_hf.methods import LossTerm, Method

from .arguments import POSConfig
from .diagnostics import Diagnostics
from .engines import DATA_PARALLEL
from .guards import FailureRecord
from .optimizer import gradient_metric


class Integration:
    """Holds the gradients of both objectives apart until a strategy has weighed them.

    Args:
        strategy: Gramian -> (w_s, w_u); of a method with one objective it is not asked.
        method: yields the terms.
        args: of the run.
        accelerator: of the run.
        diagnostics: is told the Gramian and the weights of every step.
        record: is told the gradients' squared norms.
    """

    def __init__(
        self,
        strategy: Strategy,
        method: Method,
        args: POSConfig,
        accelerator: Accelerator,
        diagnostics: Diagnostics,
        record: FailureRecord,
    ) -> None:
        has_two = len(method.objectives) == 2
        self.strategy = strategy if has_two else Fixed(1.0, 1.0)
        # a burn-in has other weights than the steps after it: `combine` chooses, which is told the step
        has_burn_in = args.strategy_burn_in_steps > 0 and self.strategy != uniform
        is_constant = isinstance(self.strategy, Fixed) and not has_burn_in
        self.holds_pair = has_two and (args.measure_gradients or not is_constant)
        # DDP reduces one backward a forward: with two it silently leaves the second gradient local
        two_backwards = self.holds_pair and method.shared_forward
        self.reduces_itself = two_backwards and accelerator.distributed_type in DATA_PARALLEL
        self.args, self.accelerator = args, accelerator
        self.diagnostics, self.record = diagnostics, record
        self.gradients = GradientPair([])
        self.norm: Tensor | None = None
        """Of the last update, 0-d, where the Gramian has told it."""
        self._metric: list[float] | None = None
        self._waiting: list[Tensor] = []

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Begin with the trained parameters of a model that is wrapped or sharded, and their optimizer."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.gradients = GradientPair(list(trained.values()))
        self._metric = gradient_metric(trained, optimizer, self.args)

    def reduction_context(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Around all backwards of a micro-batch."""
        return self.accelerator.no_sync(model) if self.reduces_itself else contextlib.nullcontext()

    def backward(self, term: LossTerm, micro_batches: int) -> None:
        """Run the backward of a term, and capture what it adds to its objective's gradient.

        Args:
            term: with its graph.
            micro_batches: of the step.
        """
        loss = term.loss / micro_batches
        if not self.holds_pair:
            # with weights known in advance one backward serves all losses of a graph
            self._waiting.append(getattr(self.strategy, term.objective) * loss)
            if not term.retain_graph:
                self.accelerator.backward(torch.stack(self._waiting).sum())
                self._waiting.clear()
            return
        self.gradients.restore(term.objective)
        self.accelerator.backward(loss, retain_graph=term.retain_graph)
        self.gradients.capture(term.objective)

    def combine(self, step: int, max_steps: int) -> None:
        """Write w_s g_s + w_u g_u into `.grad`, at the last micro-batch of a step.

        Args:
            step: optimizer steps done.
            max_steps: of the run.
        """
        if not self.holds_pair:
            return
        if self.reduces_itself:
            average_over_ranks(self.gradients.all_gradients())
        gramian = self.gradients.gramian(self._metric)
        burn_in = self.args.strategy_burn_in_steps
        burns_in = step < (burn_in * max_steps if burn_in < 1 else burn_in)
        strategy = uniform if burns_in else self.strategy
        weights = strategy(gramian)
        self.gradients.combine(weights)
        scale = 1.0 if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()
        gramian = Gramian(*(number / scale**2 for number in gramian))
        self.record.add(gramian[:2])
        self.diagnostics.add_step(gramian, weights, strategy)
        if self._metric is None:
            self.norm = gramian.norm(*weights)
