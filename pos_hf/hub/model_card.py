"""The model card of a run, from the files of its folder. Uploading is in `push`, the card's text in
templates/card.md.j2."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME

from pos_hf.errors import InputError
from pos_hf.files import damaged, read_json, write_text
from pos_hf.hub.citations import references
from pos_hf.reporting.intervals import Interval, class_iou_intervals, mean_iou_interval
from pos_hf.run_folder import CARD_FILE, RUN_FILE, SCORES_FILE, SHARES, STUDENT_FOLDER, Run, read_runs
from pos_hf.templates import load_template
from pos_hf.text import markdown, markdown_code, one_line
from pos_hf.values import check_type

FACTS: dict[str, Any] = {
    "dataset": str | None,
    "hub_dataset": str | None,
    "base_model": str | None,
    "num_labeled": int,
    "num_unlabeled": int,
    "split_hash": str | None,
    "evaluated_role": str | None,
    "method": str,
    "strategy": str,
    "seed": int,
}
"""What a card says of a training run beside its scores, by type; `run.json` holds them under "facts"."""

HYPERPARAMETERS = (
    "data.crop_size",
    "data.scale_range",
    "data.unlabeled_ratio",
    "training.method_options.",
    "training.strategy_options.",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.optim",
    "training.learning_rate",
    "training.head_learning_rate_multiplier",
    "training.weight_decay",
    "training.lr_scheduler_type",
    "training.teacher_decay",
    "training.bf16",
    "training.fp16",
)
"""The settings that a card shows; one that ends in a dot stands for all below. Others may hold paths or
tokens."""


def write_model_card(folder: Path) -> Path:
    """Write README.md into the folder of a finished run.

    Args:
        folder: Holds config.json, run.json, trainer_state.json, and metrics.json if the run was scored.

    Returns:
        The card's path.

    Raises:
        InputError: A file of the run is damaged, or does not say how its model was trained.
        TrainingStopped: The card cannot be written.
    """
    (run,) = read_runs([folder])
    card = folder / CARD_FILE
    write_text(card, model_card(run, run_facts(run), folder.name))
    return card


def run_facts(run: Run) -> dict[str, Any]:
    """The `FACTS` of a run that `pos-hf train` made.

    Raises:
        InputError: The folder does not say how its model was trained.
    """
    facts = {key: run.settings.get(f"facts.{key}") for key in FACTS}
    if facts["method"] is None:
        raise InputError(
            f"'{run.name}' holds no run.json that says how it was trained: give the folder of a run of "
            "`pos-hf train`, or call push_to_hub of the trainer."
        )
    try:
        for key, value in facts.items():
            check_type(f"facts.{key}", value, FACTS[key])
    except InputError as error:
        raise damaged(run.folder / RUN_FILE, str(error)) from error
    return facts


def model_card(run: Run, facts: Mapping[str, Any], repository: str, license: str | None = None) -> str:
    """A card's text: metadata, how to use the model, what it was trained on, and its scores if there are any.

    Args:
        run: The run's folder, read; it holds the exported model.
        facts: Values of `FACTS`, None for what is not known.
        repository: Name on the Hub, used in the lines that show how to use the model.
        license: Hub identifier of the weights' license.

    Returns:
        Markdown, in which names from the data are text and nothing else.

    Raises:
        InputError: A file of the run or of its model is damaged.
    """
    config, num_channels = read_json(run.folder / CONFIG_NAME), _num_channels(run.folder)
    _check_config(run.folder / CONFIG_NAME, config)
    _check_scores(run)
    repository = one_line(repository)
    template = load_template(
        "pos_hf.hub", "card.md.j2", percent=_percent, markdown=markdown, code=markdown_code
    )
    return template.render(
        **{key: facts.get(key) for key in FACTS},
        card_data=_metadata(run, facts, repository, license).to_yaml(),
        name=repository.split("/")[-1],
        repository=repository,
        num_classes=len(config["id2label"]),
        num_channels=num_channels,
        has_student=(run.folder / STUDENT_FOLDER).is_dir(),
        hyperparameters=_hyperparameters(run),
        steps=max((entry["step"] for entry in run.log), default=0),
        example=_example(run),
        conflict=_conflict(run),
        results=_results(run),
        references=references(facts["strategy"], facts["method"], config),
    )


def _check_config(file: Path, config: dict[str, Any]) -> None:
    try:
        check_type("id2label", config.get("id2label"), dict)
        check_type("backbone_config", config.get("backbone_config"), dict | None)
        for part in (config, config.get("backbone_config") or {}):
            check_type("model_type", part.get("model_type"), str | None)
    except InputError as error:
        raise damaged(file, str(error)) from error


def _check_scores(run: Run) -> None:
    """A report shows the scores that there are; a card is of a whole evaluation, or of none."""
    if not run.metrics:
        return
    try:
        check_type("images", run.metrics.get("images"), int)
        for key in ("dataset", "role"):
            check_type(f"protocol: {key}", run.metrics.get("protocol", {}).get(key), str)
        for key in (*SHARES, "per_category_iou"):
            if key not in run.metrics:
                raise InputError(f"{key} is missing")
    except InputError as error:
        raise damaged(run.folder / SCORES_FILE, str(error)) from error


def _num_channels(folder: Path) -> int:
    mean = read_json(folder / IMAGE_PROCESSOR_NAME).get("image_mean")
    if not isinstance(mean, list):
        raise damaged(folder / IMAGE_PROCESSOR_NAME, "it holds no image_mean")
    return len(mean)


def _example(run: Run) -> str | None:
    """Folder of the first example's pictures, as a card links it."""
    names = [name for name in run.examples if name.isprintable()]
    return quote(f"examples/{names[0]}") if names and run.metrics else None


def evaluation_results(run: Run, facts: Mapping[str, Any]) -> str | None:
    """The scores in the form of the Hub's `.eval_results/*.yaml` files.

    Returns:
        YAML; None for a run without scores, or whose data is no Hub dataset, which such a file must name.

    Raises:
        InputError: The scores are damaged.
    """
    _check_scores(run)
    if run.metrics.get("mean_iou") is None or facts.get("hub_dataset") is None:
        return None
    role, split = run.scored_role, facts["split_hash"]
    entry = EvalResultEntry(
        dataset_id=facts["hub_dataset"],
        task_id="semantic_segmentation",
        value=round(100 * run.metrics["mean_iou"], 2),
        notes=f"mIoU in percent, {role} images, absent classes skipped, split {split}",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def _metadata(run: Run, facts: Mapping[str, Any], repository: str, license: str | None) -> ModelCardData:
    """The card's metadata, with the results as a model index."""
    tags = ["semantic-segmentation", "pos_hf", facts["method"]]
    if facts["num_unlabeled"]:
        tags.append("semi-supervised-learning")
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=facts.get("hub_dataset") or run.metrics["protocol"]["dataset"],
            dataset_name=run.metrics["protocol"]["dataset"],
            dataset_split=run.scored_role,
            metric_type=key,
            metric_value=run.metrics[key],
        )
        for key in ("mean_iou", "overall_accuracy")
        if run.metrics.get(key) is not None
    ]
    return ModelCardData(
        base_model=facts.get("base_model"),
        datasets=[facts["hub_dataset"]] if facts.get("hub_dataset") else None,
        license=license,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=tags,
        metrics=["mean_iou"] if results else None,
        model_name=repository.split("/")[-1],
        eval_results=results or None,
    )


def _results(run: Run) -> dict[str, Any] | None:
    metrics = run.metrics
    if not metrics:
        return None
    protocol = {key: value for key, value in metrics["protocol"].items() if key not in FACTS}
    interval = mean_iou_interval(run.image_areas) if run.image_areas is not None else None
    return {key: metrics[key] for key in (*SHARES, "images")} | {
        "role": run.scored_role,
        "protocol": json.dumps(protocol),
        "interval": interval,
        "classes": _classes(run),
    }


def _classes(run: Run) -> list[dict[str, Any]]:
    if run.image_areas is None:
        intervals = [Interval(value, np.nan, np.nan) for value in run.class_iou.values()]
    else:
        intervals = class_iou_intervals(run.image_areas)
    return [{"name": name, "iou": interval} for name, interval in zip(run.class_iou, intervals, strict=True)]


def _hyperparameters(run: Run) -> dict[str, str]:
    shown = {}
    for allowed in HYPERPARAMETERS:
        for key, value in run.settings.items():
            if value is not None and (key == allowed or (allowed.endswith(".") and key.startswith(allowed))):
                shown[key.split(".", 1)[1]] = json.dumps(value)
    return shown


def _conflict(run: Run) -> dict[str, float] | None:
    cosine, share, gain = (run.series(key)[1] for key in ("cosine", "conflict_share", "meo_gain"))
    if not len(cosine) or not len(share):
        return None
    return {
        "cosine": float(cosine.mean()),
        "share": float(share.mean()),
        "gain": float(np.median(gain)) if len(gain) else 0.0,
    }


def _percent(value: float | None) -> str:
    return "not present" if value is None or np.isnan(value) else f"{100 * value:.1f}"
