"""What users of the Trainer may pass that has no meaning here: said at construction, in one sentence."""

from collections.abc import Mapping
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm
from transformers import BaseImageProcessor, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import SaveStrategy

from pos_hf.errors import InputError
from pos_hf.methods import Method, StudentPair
from pos_hf.models.adapters import has_adapters

from .arguments import POSConfig

REMEDIES = {
    "model_init": "would rebuild the student under its teacher: pass the model itself",
    "compute_loss_func": "has no one loss to compute here: pass a `method`, which makes both",
    "compute_metrics": "would need every image's logits at once: pass a callback with `on_evaluate`, or call "
    "pos_hf.evaluation.evaluate_images",
    "preprocess_logits_for_metrics": "has no logits to work on: pass a callback with `on_evaluate`",
}


def refuse_what_has_no_meaning(
    model: Any,
    args: POSConfig,
    eval_dataset: Any,
    processing_class: BaseImageProcessor | None,
    arguments: Mapping[str, Any],
) -> BaseImageProcessor:
    """Look at what a trainer is made of.

    Args:
        model: the student, or two.
        args: of the run.
        eval_dataset: rows, or several by name.
        processing_class: the image processor.
        arguments: further ones of `transformers.Trainer`.

    Returns:
        The image processor.

    Raises:
        InputError: names what cannot be used, and what to pass in its place.
    """
    for name, remedy in REMEDIES.items():
        if arguments.get(name) is not None:
            raise InputError(f"{name} {remedy}")
    for student in [model.first, model.second] if isinstance(model, StudentPair) else [model]:
        # both save their adapters alone, where a checkpoint holds the whole student
        is_wrapped = has_adapters(student) and not isinstance(student, PreTrainedModel)
        if is_wrapped or getattr(student, "_hf_peft_config_loaded", False):
            raise InputError(
                "a PeftModel, or a model after add_adapter, could be neither resumed nor evaluated: pass the "
                "base model after pos_hf.models.adapters.add_lora(model, {'r': 8})"
            )
        if not isinstance(student, PreTrainedModel):
            raise InputError(
                f"the model is a {type(student).__name__}, which cannot be saved and loaded as a model of "
                "transformers: derive it from PreTrainedModel, with a config that holds id2label"
            )
        if args.gradient_checkpointing and not can_checkpoint(student):
            raise InputError(
                f"gradient_checkpointing is nothing for {type(student).__name__}, which has no block that "
                "may run twice, or BatchNorm in it, whose statistics would count twice: leave it False"
            )
    if processing_class is None:
        raise InputError(
            "processing_class is missing: pass the model's image processor, or "
            "pos_hf.models.default_image_processor() for ImageNet's statistics"
        )
    if isinstance(eval_dataset, dict) and (
        args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST
    ):
        raise InputError(
            "the best model is the best on one data set: pass one as eval_dataset, or leave out "
            "load_best_model_at_end and save_strategy 'best'"
        )
    return processing_class


def can_checkpoint(model: PreTrainedModel) -> bool:
    """Whether the model's blocks may run a second time in the backward, without BatchNorm to count it."""
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    counts = any(isinstance(module, _BatchNorm) for block in blocks for module in block.modules())
    return model.supports_gradient_checkpointing and not counts


def refuse_without_held_out(method: Method, args: POSConfig, eval_dataset: Any) -> None:
    """Ask for what a method that measures itself on held-out labels needs.

    Raises:
        InputError: no evaluation is to show it any, or several data sets would.
    """
    if not method.needs_held_out:
        return
    if eval_dataset is None or isinstance(eval_dataset, dict) or args.eval_strategy == "no":
        raise InputError(
            "the confidence rule is measured on held-out labels at each evaluation: set eval_strategy to "
            "steps or epoch, and selection_share (0.05) or selection images; from Python pass one "
            "eval_dataset"
        )
