"""Are the labels that `pos-hf suggest` asks for worth more than as many random ones? By dataset and seed.

usage: python scripts/suggest_study.py [shapes | camvid] [--seeds 5]

Each seed draws images to begin with from a pool, trains on them, lets the model suggest as many more, and
trains anew on both, and on the first with as many random ones. Runs whose scores are recorded are not run
again. Three runs a seed: of `shapes` about 75 seconds each on one core, of `camvid` eight minutes, after
    python scripts/examples/custom_backbone.py models/efficientnet_lite0
    python scripts/examples/resize_folder.py ../shared/data/camvid data/camvid_120x90 120 90
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf import DataArguments, load_data
from pos_hf.cli import suggest
from pos_hf.data import SegmentationData
from pos_hf.files import write_text
from pos_hf.runs.config import parse_config
from pos_hf.runs.train import run_training
from pos_hf.studies.records import add_record, fingerprint, read_records
from pos_hf.studies.scores import over_seeds

ROOT = Path(__file__).parents[1]
ARMS = ("before", "suggested", "random")


@dataclass(frozen=True)
class Pool:
    """A dataset of which every image may be labeled, and how its models are trained.

    Args:
        scores: File of its recorded runs.
        folder: Of a seed's lists, images and runs; the images' is part of what names a record.
        data: Its images, all with masks.
        settings: Entries of configs/shapes/pos_meo.yaml to replace.
        num_labels: Images that are labeled before the suggestion, and added by it.
        draws_images: A seed draws other images, in random order; else it draws their order.
    """

    scores: Path
    folder: str
    data: dict[str, Any]
    settings: dict[str, Any]
    num_labels: int
    draws_images: bool


SHAPES = Pool(
    scores=ROOT / "configs/studies/scores/suggest.jsonl",
    folder="runs/studies/suggest/seed_{seed}_12_12_600",
    # as many as it has with and without labels
    data={"dataset": "shapes", "num_labeled": 252, "num_test": 200},
    settings={"max_steps": 600},
    num_labels=12,
    draws_images=True,
)
CAMVID = Pool(
    scores=ROOT / "configs/studies/scores/suggest_camvid.jsonl",
    folder="runs/studies/suggest_camvid/seed_{seed}",
    data={
        "dataset": "data/camvid_120x90",
        "images": "train/images",
        "masks": "train/masks",
        "test_images": "val/images",
        "test_masks": "val/masks",
        "selection_share": 0.0,
    },
    settings={  # of configs/studies/camvid_small.yaml
        "model": "models/efficientnet_lite0",
        "trust_remote_code": "true",
        "method_options": '{"logit_adjustment": true}',
        "crop_size": 80,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-4,
        "head_learning_rate_multiplier": 10,
        "teacher_decay": 0.99,
        "max_steps": 1000,
    },
    num_labels=23,
    draws_images=False,
)
POOLS = {"shapes": SHAPES, "camvid": CAMVID}


def main(argv: list[str]) -> None:
    """Run what is not recorded yet, and print each seed's scores and the mean difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", nargs="?", choices=POOLS, default="shapes")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args(argv)
    rows = [scores_of_seed(POOLS[args.pool], seed) for seed in range(args.seeds)]
    print("mIoU in %: " + ", ".join(ARMS))
    for seed, row in enumerate(rows):
        print(f"seed {seed}: " + "  ".join(f"{100 * value:5.1f}" for value in row))
    if len(rows) > 1:
        mean, low, high = over_seeds([100 * (suggested - random) for _, suggested, random in rows])
        print(f"suggested - random: {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} over seeds")


def scores_of_seed(pool: Pool, seed: int) -> list[float]:
    """The three arms' mean IoU, trained where it is not recorded."""
    work = Path(pool.folder.format(seed=seed))
    scores = []
    for arm in ARMS:
        settings = {
            "dataset": str(work / "data"),
            "labeled_ids": f"{arm}.txt",
            **pool.settings,
            "eval_strategy": "no",
            "seed": seed,
            "output_dir": str(work / arm),
        }
        key = fingerprint(settings)
        if key not in read_records(pool.scores):
            if not (work / "data" / "before.txt").is_file():
                write_pool(work / "data", pool, seed)
            if arm == "suggested":
                append_suggestions(work, pool.num_labels)
            train(settings)
            names = {"arm": arm, "column": "mIoU", "seed": seed, "settings": key}
            add_record(pool.scores, names, work / arm)
        scores.append(read_records(pool.scores)[key]["mean_iou"])
    return scores


def write_pool(data: Path, pool: Pool, seed: int) -> None:
    """Write the images with all masks, and the lists of the arms that are known before the first training."""
    source: SegmentationData = load_data(DataArguments(**pool.data, split_seed=seed), needs_unlabeled=False)
    for place, rows in (("", source.labeled), ("test/", source.test)):
        for column in ("image", "mask"):
            (data / f"{place}{column}s").mkdir(parents=True, exist_ok=True)
            for row in rows.select_columns(["id", column]):
                row[column].save(data / f"{place}{column}s" / f"{row['id']}.png")
    write_text(data / "id2label.json", json.dumps(source.id2label))
    ids = list(source.labeled["id"])
    if not pool.draws_images:
        ids = np.random.default_rng(seed).permutation(ids).tolist()
    first, rest = ids[: pool.num_labels], ids[pool.num_labels :]
    random = np.random.default_rng(seed).permutation(rest)[: pool.num_labels].tolist()
    write_text(data / "random.txt", "".join(f"{id}\n" for id in [*first, *random]))
    write_text(data / "before.txt", "".join(f"{id}\n" for id in first))  # last: then the pool is whole


def append_suggestions(work: Path, count: int) -> None:
    """Let the first model choose, and write the list of its labels and the chosen ones."""
    data, run, out = work / "data", work / "before", work / "suggestion"
    if not (run / "metrics.json").is_file():  # recorded elsewhere: this needs the model, not only its score
        raise SystemExit(f"{run} is not here: remove the line of its record, and it is trained again")
    if not (out / suggest.LIST).is_file():
        arguments = ["--count", str(count), "--exclude", str(data / "before.txt"), "--out", str(out)]
        arguments += ["--trust_remote_code"]  # of the backbone of custom_backbone.py
        if suggest.main([str(run), str(data / "images"), *arguments]):
            raise SystemExit("an image of the pool could not be read")
    write_text(data / "suggested.txt", (data / "before.txt").read_text() + (out / suggest.LIST).read_text())


def train(settings: dict[str, Any]) -> None:
    """Train the demo's recipe with these entries."""
    overrides = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    run_training(*parse_config(ROOT / "configs/shapes/pos_meo.yaml", [*overrides, "--overwrite", "true"]))


if __name__ == "__main__":
    main(sys.argv[1:])
