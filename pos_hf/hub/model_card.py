"""The model card of a run, from the files of its folder. Uploading is in `publish`, the card's text in
templates/card.md.j2."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from pos_hf.hub.citations import METHODS, STRATEGIES
from pos_hf.reporting.history import Run, read_runs
from pos_hf.reporting.intervals import Interval, class_iou_intervals, mean_iou_interval

CARD_FACTS = (
    "dataset",
    "role",
    "split_hash",
    "num_labeled",
    "num_unlabeled",
    "method",
    "strategy",
    "steps",
    "seed",
)
"""What a run's evaluation protocol must say for its card, beside what `pos_hf.evaluation.protocol` adds."""


def write_model_card(
    folder: Path,
    *,
    repository: str | None = None,
    base_model: str | None = None,
    license: str | None = None,
) -> Path:
    """Write README.md into a run's folder from its metrics.json, per_image.npz, log and examples.

    Args:
        folder: A finished run; the protocol in its metrics.json holds `CARD_FACTS`.
        repository: Name on the Hub, used in the usage lines; the folder's name by default.
        base_model: Hub id of the pretrained weights, None for a model trained from scratch.
        license: Hub identifier of the weights' license.

    Returns:
        The card's path.
    """
    (run,) = read_runs([folder])
    repository = repository or folder.name
    environment = Environment(
        loader=PackageLoader("pos_hf.hub"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = _percent
    facts = run.metrics["protocol"]
    text = environment.get_template("card.md.j2").render(
        card_data=card_data(run, repository, base_model, license).to_yaml(),
        name=repository.split("/")[-1],
        repository=repository,
        images=run.metrics["images"],
        interval=mean_iou_interval(run.image_areas) if run.image_areas is not None else None,
        classes=_classes(run),
        example=next((f"examples/{name}/overlay.png" for name in run.examples), None),
        conflict=_conflict(run),
        protocol=json.dumps({key: value for key, value in facts.items() if key not in CARD_FACTS}),
        references=_references(facts) if facts["num_unlabeled"] else [],
        **{key: run.metrics[key] for key in ("mean_iou", "mean_iou_absent_zero", "overall_accuracy")},
        **{key: facts[key] for key in CARD_FACTS},
    )
    card = folder / "README.md"
    card.write_text(text)
    return card


def card_data(run: Run, repository: str, base_model: str | None, license: str | None) -> ModelCardData:
    """The card's metadata, with the results as a model index."""
    facts = run.metrics["protocol"]
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=facts["dataset"],
            dataset_name=facts["dataset"],
            dataset_split=facts["role"],
            metric_type=key,
            metric_value=run.metrics[key],
        )
        for key in ("mean_iou", "overall_accuracy")
    ]
    return ModelCardData(
        base_model=base_model,
        license=license,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "semi-supervised-learning", "pos_hf", facts["method"]],
        metrics=["mean_iou"],
        model_name=repository.split("/")[-1],
        eval_results=results,
    )


def _references(facts: dict[str, Any]) -> list[str]:
    """Papers of the strategy and the method; plain averages cite nothing."""
    papers = STRATEGIES.get(facts["strategy"]), METHODS.get(facts["method"])
    return [paper for paper in papers if paper]


def _classes(run: Run) -> list[dict[str, Any]]:
    if run.image_areas is None:
        intervals = [Interval(value, np.nan, np.nan) for value in run.class_iou.values()]
    else:
        intervals = class_iou_intervals(run.image_areas)
    return [{"name": name, "iou": interval} for name, interval in zip(run.class_iou, intervals, strict=True)]


def _conflict(run: Run) -> dict[str, float] | None:
    cosine, share, gain = (run.series(key)[1] for key in ("cosine", "conflict_share", "meo_gain"))
    if not len(cosine) or not len(share):
        return None
    return {
        "cosine": float(cosine.mean()),
        "share": float(share.mean()),
        "gain": float(np.median(gain)) if len(gain) else 0.0,
    }


def _percent(value: float) -> str:
    return "not present" if np.isnan(value) else f"{100 * value:.1f}"
