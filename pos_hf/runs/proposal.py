"""A config for a folder of images that nobody has written one for: `pos-hf init FOLDER`, `train FOLDER`."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pos_hf.data import DataArguments
from pos_hf.data.contents import FolderContents, describe_folder
from pos_hf.data.loading import load_roles

SMALL_IMAGE = 128
"""Pixels of the shorter side up to which a small network from scratch is taken, also with a GPU."""
FEWEST_LABELS = 20
"""From so many on a tenth is set aside to watch the training, if there are no test images."""
EVALUATIONS = 4
SIZES_READ = 16
# passes over the unlabeled images, as in the demo and as published; then the fewest and the most steps
SMALL = {"epochs": 20, "batch": 8, "steps": (600, 4000)}
LARGE = {"epochs": 60, "batch": 4, "steps": (2000, 20000)}


def propose_config(folder: Path, output_dir: str | None = None) -> str:
    """Look at a folder and write down how it could be trained on.

    Args:
        folder: of images and masks in any layout that is recognised, or `shapes`.
        output_dir: of the run; None names it after the folder.

    Returns:
        YAML with a comment for every choice, the same for the same folder and machine.

    Raises:
        InputError: the folder is not understood, or nothing in it is labeled.
    """
    contents = describe_folder(folder)
    side = _shorter_side(contents)
    is_small = side <= SMALL_IMAGE or not torch.cuda.is_available()
    plan = SMALL if is_small else LARGE
    name = Path(folder).resolve().name if str(folder) != "shapes" else "shapes"
    options = dict(contents.options) | {"dataset": str(folder)}
    sections = [
        _section(_found(contents, side), {}),
        _section(["Where the images are, as recognised.", *contents.assumptions], options),
        _section(*_network(is_small, side)),
        _section(*_losses(contents)),
        _section(*_length(contents, plan)),
        _section(*_watching(contents, plan)),
        _section(["The run: model, scores, report."], {"output_dir": output_dir or f"runs/{name}"}),
    ]
    return "\n".join(section for section in sections if section)


def _section(comments: list[str], values: dict[str, Any]) -> str:
    lines = [f"# {line}" for line in comments]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else ""
    return "\n".join(lines) + "\n" + text


def _found(contents: FolderContents, side: int) -> list[str]:
    roles = ", ".join(f"{count:,} {role}" for role, count in contents.roles.items())
    names = ", ".join(contents.class_names[:8]) + (", ..." if len(contents.class_names) > 8 else "")
    return [
        f"Proposed by pos-hf from what lies in the folder: {roles} images,",
        f"the shorter side {side} pixels in the middle; {len(contents.class_names)} classes: {names}.",
        "Every line may be changed; docs/settings.md explains all keys.",
    ]


def _network(is_small: bool, side: int) -> tuple[list[str], dict[str, Any]]:
    if not is_small:
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


def _losses(contents: FolderContents) -> tuple[list[str], dict[str, Any]]:
    if "unlabeled" not in contents.roles:
        return ["There are no unlabeled images: put some into unlabeled/, and take unimatch_v2."], {
            "method": "supervised"
        }
    return ["How the unlabeled images are learned from, and how both gradients are balanced."], {
        "method": "unimatch_v2",
        "strategy": "pos",
    }


def _length(contents: FolderContents, plan: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    images = contents.roles.get("unlabeled", contents.roles["labeled"])
    batch = min(plan["batch"], images)
    steps = num_steps(images, plan)
    passes = steps * batch / images
    why = [f"{steps * batch:,} unlabeled images are seen, each {passes:.3g} times: more steps score higher,"]
    why += [f"up to a point; {plan['epochs']} times is what the recipes do with few images."]
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


def _watching(contents: FolderContents, plan: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    images = contents.roles.get("unlabeled", contents.roles["labeled"])
    every = num_steps(images, plan) // EVALUATIONS
    logging = {"logging_steps": max(every // 10, 1), "save_strategy": "steps", "save_steps": every}
    logging["save_total_limit"] = 1
    evaluated = {"eval_strategy": "steps", "eval_steps": every}
    if {"test", "selection"} & contents.roles.keys():
        why = ["Scored on the way and at the end; all labels are trained on."]
        return why, {"selection_share": 0.0, **evaluated, **logging}
    if contents.roles["labeled"] < FEWEST_LABELS:
        why = ["Too few labels to set some aside: nothing is scored. Put labeled images into test/images and"]
        return [*why, "test/masks to know how good the model is."], {"selection_share": 0.0, **logging}
    why = ["There are no test images: a tenth of the labels is set aside to be scored on."]
    return why, {"selection_share": 0.1, **evaluated, **logging}


def _shorter_side(contents: FolderContents) -> int:
    data = load_roles(DataArguments(**contents.options), needs_unlabeled=False)
    rows = data.labeled.select(range(min(SIZES_READ, len(data.labeled))))
    return int(np.median([min(np.asarray(row["mask"]).shape) for row in rows]))
