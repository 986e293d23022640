"""The names of weights in a checkpoint. Models that are exported have those that transformers gives them.

For some networks (DINOv2 among them) `save_pretrained` writes the names of earlier versions, and
`from_pretrained` turns them back. The Trainer reads a checkpoint by the names as they stand, and goes on from
fresh weights, with a warning, where it knows none of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers.utils import SAFE_WEIGHTS_NAME

from pos_hf.errors import InputError


@contextmanager
def own_names(*models: nn.Module) -> Iterator[None]:
    """Inside, `save_pretrained` writes the names that the models themselves have.

    Args:
        models: of transformers; on others it has no effect.
    """
    before = [vars(model).get("_weight_conversions") for model in models]
    for model in models:
        model._weight_conversions = []  # type: ignore[assignment]
    try:
        yield
    finally:
        for model, conversions in zip(models, before, strict=True):
            model._weight_conversions = conversions  # type: ignore[assignment]


def refuse_other_names(model: nn.Module, checkpoint: Path) -> None:
    """Compare the names of a checkpoint's weights with a model's.

    Args:
        model: that would take the weights.
        checkpoint: its folder; sharded weights are not looked at.

    Raises:
        InputError: the checkpoint holds a name that the model has not.
    """
    file = checkpoint / SAFE_WEIGHTS_NAME
    if not file.exists():
        return
    with safe_open(file, "pt") as saved:
        unknown = sorted({*saved.keys()} - {*model.state_dict()})
    if unknown:
        raise InputError(
            f"{file} holds {len(unknown)} weights under names that the model does not have, {unknown[0]} "
            "among them: it was written by another version; start another run from its weights with `model`"
        )
