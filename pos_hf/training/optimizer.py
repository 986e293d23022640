"""Two parameter groups, the backbone's and the rest, and the inner product that their learning rates make."""

from typing import Any

import torch
from torch import nn

from pos_hf.errors import InputError

from .arguments import POSConfig


def make_optimizer(
    model: nn.Module,
    backbone: str | None,
    made: tuple[type[torch.optim.Optimizer], dict[str, Any]],
    args: POSConfig,
    is_sharded: bool,
) -> torch.optim.Optimizer:
    """The optimizer, with the backbone at `learning_rate` and everything else at a multiple of it.

    Args:
        model: to optimize.
        backbone: name of the backbone in it; without one everything has the multiple.
        made: class of the optimizer, and its options; what they do not say, `args` do.
        args: of the run.
        is_sharded: the parameters are DTensors, which have no fused SGD.

    Returns:
        The optimizer. Weight decay applies to every parameter, as in the published code.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[backbone in name.split(".")].append(parameter)
    optimizer_class, options = made[0], {"weight_decay": args.weight_decay, **made[1]}
    if optimizer_class is torch.optim.SGD:
        options.setdefault("fused", not is_sharded)
    rate = options.pop("lr", args.learning_rate)
    head_rate = rate * args.head_learning_rate_multiplier
    return optimizer_class(
        [{"params": groups[True], "lr": rate}, {"params": groups[False], "lr": head_rate}], **options
    )


def gradient_metric(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, args: POSConfig
) -> list[float] | None:
    """The factor of each parameter in the Gramian, as `gradient_scope` and `gradient_metric` say.

    Args:
        parameters: the trained ones by name.
        optimizer: with its schedule made, so that every group knows its first learning rate.
        args: of the run.

    Returns:
        One factor a parameter; None where all are 1.

    Raises:
        InputError: the scope names no parameter.
    """
    scope, by_rate = args.gradient_scope, args.gradient_metric == "learning_rate"
    if scope is None and not by_rate:
        return None
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    metric = [
        (rates[id(parameter)] if by_rate else 1.0) * name.startswith(scope or "")
        for name, parameter in parameters.items()
    ]
    if not any(metric):
        first = next(iter(parameters))
        raise InputError(f"gradient_scope {scope!r} names no trainable parameter, such as {first!r}")
    return metric
