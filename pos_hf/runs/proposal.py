"""A config for a folder of images that nobody has written one for: `pos-hf init FOLDER`, `train FOLDER`."""

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pos_hf.data import DataArguments
from pos_hf.data.arguments import differing_options
from pos_hf.data.checks import rare_shares
from pos_hf.data.loading import load_roles
from pos_hf.data.recognition import resolve
from pos_hf.data.segmentation_data import SegmentationData

SMALL_IMAGE = 128
"""Pixels of the shorter side up to which a small network from scratch is taken, also with a GPU."""
FEWEST_LABELS = 20
"""From so many on a tenth is set aside to watch the training, if there are no test images."""
EVALUATIONS = 4
WIDTH = 108
MASKS_READ = 200
"""Of the labeled images, for their sizes and for the classes' shares."""
# passes over the unlabeled images, as in the demo, as they paid on CamVid (docs/studies.md) and as published;
# then the fewest and the most steps
SMALL = {"epochs": 20, "batch": 8, "steps": (600, 4000)}
PHOTOS = SMALL | {"epochs": 35}
LARGE = {"epochs": 60, "batch": 4, "steps": (2000, 20000)}


def propose_config(folder: Path, output_dir: str | None = None, **known: Any) -> str:
    """Look at a folder and write down how it could be trained on.

    Args:
        folder: of images and masks in any layout that is recognised, or `shapes`.
        output_dir: of the run; None names it after the folder.
        known: of `DataArguments`, what need not be found out, such as `labeled_ids`.

    Returns:
        YAML with a comment for every choice, the same for the same folder and machine.

    Raises:
        InputError: the folder is not understood, or nothing in it is labeled.
    """
    asked = DataArguments(dataset=str(folder), **known)
    data = load_roles(asked, needs_unlabeled=False)
    counts = {role: len(rows) for role, rows in {**data.masked_roles, "unlabeled": data.unlabeled}.items()}
    roles = {role: count for role, count in counts.items() if count}
    side, rare = _look_at_masks(data)
    photos = LARGE if torch.cuda.is_available() else PHOTOS
    plan = SMALL if side <= SMALL_IMAGE else photos
    name = Path(folder).resolve().name if str(folder) != "shapes" else "shapes"
    options = differing_options(resolve(asked)[0]) | {"dataset": str(folder)}
    options.pop("selection_share", None)  # decided below
    sections = [
        _section(_found(data, roles, side), {}),
        _section(["Where the images are, as recognised.", *data.assumptions], options),
        _section(*_network(plan, side)),
        _section(*_losses(roles, rare)),
        _section(*_length(roles, plan)),
        _section(*_watching(roles, plan)),
        _section(["The run: model, scores, report."], {"output_dir": output_dir or f"runs/{name}"}),
    ]
    return "\n".join(section for section in sections if section)


def _section(comments: list[str], values: dict[str, Any]) -> str:
    lines = [f"# {line}" for comment in comments for line in textwrap.wrap(comment, WIDTH)]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else ""
    return "\n".join(lines) + "\n" + text


def _found(data: SegmentationData, roles: dict[str, int], side: int) -> list[str]:
    images = ", ".join(f"{count:,} {role}" for role, count in roles.items())
    names = ", ".join(list(data.id2label.values())[:8]) + (", ..." if data.num_classes > 8 else "")
    return [
        f"Proposed by pos-hf from what lies in the folder: {images} images,",
        f"the shorter side {side} pixels in the middle; {data.num_classes} classes: {names}.",
        "Every line may be changed; docs/settings.md explains all keys.",
    ]


def _network(plan: dict[str, Any], side: int) -> tuple[list[str], dict[str, Any]]:
    if plan is LARGE:
        crop = min(518, max(side // 14, 8) * 14)
        return ["UniMatch V2's network, pretrained; its patches are 14 pixels wide."], {
            "model": "dinov2_dpt_small",
            "backbone_weights": "facebook/dinov2-small",
            "crop_size": crop,
            "learning_rate": 5.0e-6,
            "head_learning_rate_multiplier": 40.0,
        }
    why = ["A small network from scratch, for small images and machines without a GPU. With a GPU and photos"]
    why += ["take `model: dinov2_dpt_small`, `backbone_weights: facebook/dinov2-small`, `crop_size: 518`,"]
    why += ["`learning_rate: 5.0e-6`, `head_learning_rate_multiplier: 40.0`."]
    return why, {
        "model": "deeplabv3plus_tiny",
        "crop_size": min(max(side, 32), 160),
        "scale_range": [0.75, 1.5],
        "learning_rate": 3.0e-3,
        "teacher_decay": 0.98,
    }


def _losses(roles: dict[str, int], rare: list[str]) -> tuple[list[str], dict[str, Any]]:
    if "unlabeled" not in roles:
        return ["There are no unlabeled images: put some into unlabeled/, and take unimatch_v2."], {
            "method": "supervised"
        }
    why = ["How the unlabeled images are learned from, and how both gradients are balanced."]
    options = {"method": "unimatch_v2", "strategy": "pos"}
    if not rare:
        return why, options
    why += [f"{', '.join(rare)} of the labeled pixels:"]
    why += ["logit_adjustment keeps the unlabeled images from unlearning so rare a class."]
    return why, options | {"method_options": {"logit_adjustment": True}}


def _length(roles: dict[str, int], plan: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    images = roles.get("unlabeled", roles["labeled"])
    batch = min(plan["batch"], images)
    steps = num_steps(images, plan)
    passes = steps * batch / images
    role = "unlabeled" if "unlabeled" in roles else "labeled"
    why = [f"{steps * batch:,} {role} images are seen, each {passes:.3g} times: more steps score higher,"]
    why += [f"up to a point; {plan['epochs']} times is what paid with few images."]
    workers = min(4, max((os.cpu_count() or 1) - 1, 0)) if plan is LARGE else 0
    return why, {
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "dataloader_num_workers": workers,
    }


def num_steps(num_images: int, plan: dict[str, Any]) -> int:
    """Steps for the images that an epoch is made of: the plan's passes, within its bounds."""
    fewest, most = plan["steps"]
    return min(max(plan["epochs"] * num_images // min(plan["batch"], num_images), fewest), most)


def _watching(roles: dict[str, int], plan: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    images = roles.get("unlabeled", roles["labeled"])
    every = num_steps(images, plan) // EVALUATIONS
    logging = {"logging_steps": max(every // 10, 1), "save_strategy": "steps", "save_steps": every}
    logging["save_total_limit"] = 1
    evaluated = {"eval_strategy": "steps", "eval_steps": every}
    if {"test", "selection"} & roles.keys():
        why = ["Scored on the way and at the end; all labels are trained on."]
        return why, {"selection_share": 0.0, **evaluated, **logging}
    if roles["labeled"] < FEWEST_LABELS:
        why = ["Too few labels to set some aside: nothing is scored. Put labeled images into test/images and"]
        return [*why, "test/masks to know how good the model is."], {"selection_share": 0.0, **logging}
    why = ["There are no test images: a tenth of the labels is set aside to be scored on."]
    return why, {"selection_share": 0.1, **evaluated, **logging}


def _look_at_masks(data: SegmentationData) -> tuple[int, list[str]]:
    """The shorter side in the middle, and what to say of each rare class."""
    masks = data.labeled.select_columns("mask").select(range(min(MASKS_READ, len(data.labeled))))
    sides, counts = [], np.zeros(256, np.int64)
    for row in masks:
        mask = np.asarray(row["mask"])
        sides.append(min(mask.shape))
        counts += np.bincount(mask.ravel(), minlength=256)
    return int(np.median(sides)), rare_shares(counts[: data.num_classes], data.id2label)
