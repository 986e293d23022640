"""Which parts of a model stay as they are in training. What is trained in their place is in adapters.py."""

from torch import nn
from transformers import PreTrainedModel

from pos_hf.errors import InputError


def find_backbone(model: PreTrainedModel) -> str | None:
    """Name of the part that comes pretrained: transformers' base model, or `backbone` (UperNet), or None."""
    for name in (model.base_model_prefix, "backbone"):
        if name and isinstance(getattr(model, name, None), nn.Module):
            return name
    return None


def backbone_name(model: PreTrainedModel) -> str:
    """As `find_backbone`, of a model that must have one.

    Raises:
        InputError: it has none.
    """
    name = find_backbone(model)
    if name is None:
        raise InputError(f"{type(model).__name__} has no part that is its backbone: train all of it")
    return name


def freeze_backbone(model: PreTrainedModel) -> None:
    """Take the backbone out of training, in place: no gradient, no optimizer state, evaluation mode.

    Args:
        model: of which something beside the backbone must be left to train.

    Raises:
        InputError: nothing is, or the model has no backbone.
    """
    name = backbone_name(model)
    model.get_submodule(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"{type(model).__name__} has no parameter outside of its {name}, so that nothing would be left "
            "to train: leave out freeze_backbone"
        )


def frozen_parts(model: nn.Module) -> list[nn.Module]:
    """The largest modules that have parameters, none of which is trained: they belong in evaluation mode.

    There BatchNorm's running statistics, which no gradient tells of, stay those of the frozen weights.
    """
    parameters = [*model.parameters()]
    if not parameters:
        return []
    if not any(parameter.requires_grad for parameter in parameters):
        return [model]
    return [part for child in model.children() for part in frozen_parts(child)]
