"""check-data in several processes against one: the same report, how much sooner, and at what price.

    python scripts/benchmarks/check_data.py [--images 256] [--workers 2] [--rounds 3]

Photos of 1280 x 853 pixels with masks; both sides take turns. "sooner" is the ratio of wall times, which
means nothing while other programs run; "processor_time" is what all processes took, over one alone. The
last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from data_pipeline import textured
from PIL import Image

from pos_hf.cli.parsing import importing

with importing():  # as the command does
    from pos_hf.data import DataArguments
    from pos_hf.data.checks import check_data

WIDTH, HEIGHT = 1280, 853


def write_dataset(folder, num_images, size=(WIDTH, HEIGHT)):
    """Half of the images have masks, of two classes."""
    for name in ("images", "masks", "unlabeled"):
        (folder / name).mkdir()
    (folder / "id2label.json").write_text('{"0": "dark", "1": "bright"}')
    for index in range(num_images):
        picture = textured(*size, index)
        role = "images" if index < num_images // 2 else "unlabeled"
        picture.save(folder / role / f"{index:05d}.jpg", quality=90)
        if role == "images":
            ids = (np.asarray(picture.convert("L")) > 128).astype(np.uint8)
            Image.fromarray(ids).save(folder / "masks" / f"{index:05d}.png")


def check(folder, num_workers):
    """(what was found, seconds by the clock, seconds of processor time in all processes)."""
    before, start = spent(), time.perf_counter()
    report = check_data(DataArguments(dataset=str(folder), selection_share=0), num_workers=num_workers)
    seconds = time.perf_counter() - start
    return [finding.sentence() for finding in report.findings], seconds, spent() - before


def spent():
    times = psutil.Process().cpu_times()  # of ended children too
    return times.user + times.system + times.children_user + times.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, nargs=2, default=[WIDTH, HEIGHT])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sooner, price = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_dataset(folder, args.images, args.size)
        for round_number in range(args.rounds + 1):
            alone, shared = check(folder, 0), check(folder, args.workers)
            assert alone[0] == shared[0], "the reports differ"
            if round_number > 0:  # the first fills the disk's cache
                sooner.append(alone[1] / shared[1])
                price.append(shared[2] / alone[2])
    result = {
        "images": args.images,
        "size": args.size,
        "workers": args.workers,
        "sooner": [round(value, 2) for value in sorted(sooner)],
        "processor_time": round(statistics.median(price), 2),
        "ms_an_image_alone": round(1e3 * alone[2] / args.images, 1),
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
