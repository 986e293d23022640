"""Are the labels that `pos-hf suggest` asks for worth more than as many random ones? On `shapes`, by seed.

usage: python scripts/suggest_study.py [--seeds 5] [--labels 12] [--count 12] [--steps 600]

Each seed draws a pool of images, trains on the first `--labels` of them, lets the model suggest `--count`
more, and trains anew on both, and on the first with `--count` random ones. Runs whose scores are recorded are
not run again; three runs a seed, about 75 seconds each on one core.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pos_hf import DataArguments, load_data
from pos_hf.cli import suggest
from pos_hf.data import SegmentationData
from pos_hf.files import write_text
from pos_hf.runs.config import parse_config
from pos_hf.runs.train import run_training
from pos_hf.studies.records import Record, add_record, fingerprint, read_records
from pos_hf.studies.scores import over_seeds

ROOT = Path(__file__).parents[1]
POOL = 252
"""Images that may be labeled, as many as `shapes` has with and without labels."""
NUM_TEST = 200
ARMS = ("before", "suggested", "random")


def main(argv: list[str]) -> None:
    """Run what is not recorded yet, and print each seed's scores and the mean difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=12, help="before the suggestion (default: 12)")
    parser.add_argument("--count", type=int, default=12, help="labels to add (default: 12)")
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: 600)")
    parser.add_argument("--scores", type=Path, default=ROOT / "configs/studies/scores/suggest.jsonl")
    parser.add_argument("--work", type=Path, default=Path("runs/studies/suggest"))
    args = parser.parse_args(argv)
    args.scores.parent.mkdir(parents=True, exist_ok=True)
    rows = [scores_of_seed(seed, args) for seed in range(args.seeds)]
    print("mIoU in %: " + ", ".join(ARMS))
    for seed, row in enumerate(rows):
        print(f"seed {seed}: " + "  ".join(f"{100 * value:5.1f}" for value in row))
    if len(rows) > 1:
        mean, low, high = over_seeds([100 * (suggested - random) for _, suggested, random in rows])
        print(f"suggested - random: {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} over seeds")


def scores_of_seed(seed: int, args: argparse.Namespace) -> list[float]:
    """The three arms' mean IoU, trained where it is not recorded."""
    work = args.work / f"seed_{seed}_{args.labels}_{args.count}_{args.steps}"
    data = work / "data"
    if not (data / "before.txt").is_file():
        write_pool(data, seed, args)
    scores = []
    for arm in ARMS:
        if arm == "suggested" and not (data / "suggested.txt").is_file():
            append_suggestions(work / "before", data, args.count)
        settings = {
            "dataset": str(data),
            "labeled_ids": f"{arm}.txt",
            "max_steps": args.steps,
            "eval_strategy": "no",
            "seed": seed,
            "output_dir": str(work / arm),
        }
        # a suggestion needs the first model, not only its score
        is_needed = arm == "before" and not (data / "suggested.txt").is_file()
        scores.append(recorded(arm, seed, settings, args.scores, is_needed)["mean_iou"])
    return scores


def write_pool(data: Path, seed: int, args: argparse.Namespace) -> None:
    """Write the images with all masks, and the lists of the arms that are known before the first training."""
    source: SegmentationData = load_data(
        DataArguments(dataset="shapes", split_seed=seed, num_labeled=POOL, num_test=NUM_TEST)
    )
    for place, rows in (("", source.labeled), ("test/", source.test)):
        for column in ("image", "mask"):
            (data / f"{place}{column}s").mkdir(parents=True, exist_ok=True)
            for row in rows.select_columns(["id", column]):
                row[column].save(data / f"{place}{column}s" / f"{row['id']}.png")
    write_text(data / "id2label.json", json.dumps(source.id2label))
    ids = list(source.labeled["id"])
    first, rest = ids[: args.labels], ids[args.labels :]
    random = np.random.default_rng(seed).permutation(rest)[: args.count].tolist()
    write_text(data / "random.txt", "".join(f"{id}\n" for id in [*first, *random]))
    write_text(data / "before.txt", "".join(f"{id}\n" for id in first))  # last: then the pool is whole


def append_suggestions(run: Path, data: Path, count: int) -> None:
    """Let a finished run choose, and write the list of its labels and the chosen ones."""
    before, out = data / "before.txt", run.parent / "suggestion"
    arguments = ["--count", str(count), "--exclude", str(before), "--out", str(out)]
    if not (out / suggest.LIST).is_file() and suggest.main([str(run), str(data / "images"), *arguments]):
        raise SystemExit("an image of the pool could not be read")
    write_text(data / "suggested.txt", before.read_text() + (out / suggest.LIST).read_text())


def recorded(arm: str, seed: int, settings: dict[str, Any], scores: Path, is_needed: bool) -> Record:
    """The record of a run, which is trained if there is none, or if its model is needed and not there."""
    key, folder = fingerprint(settings), Path(settings["output_dir"])
    records = read_records(scores)
    if key not in records or (is_needed and not (folder / "metrics.json").is_file()):
        overrides = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        config = ROOT / "configs/shapes/pos_meo.yaml"
        run_training(*parse_config(config, [*overrides, "--overwrite", "true"]))
        if key not in records:
            add_record(scores, arm, "mIoU", seed, settings, folder)
    return read_records(scores)[key]


if __name__ == "__main__":
    main(sys.argv[1:])
