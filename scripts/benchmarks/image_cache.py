"""Training items a second per core from large JPEG photos, with `image_cache` against decoding each time.

    python scripts/benchmarks/image_cache.py [--images 6] [--size 4000 3000] [--rounds 3]

One process and one thread, processor time; an item is a pair of a labeled and an unlabeled photo with its
views. The sides take turns, item by item, after an epoch that fills the cache. With `device_views` a GPU
makes the strong views. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from data_pipeline import textured
from PIL import Image

from pos_hf.data import DataArguments, PairedDataset
from pos_hf.data.loading import load_roles

GRAIN = 4.0  # grey levels of noise, as a camera's: a photo takes about 3 bits a pixel then


def write_photos(folder, num_images, size):
    """Photos with masks, and as many without."""
    for name in ("images", "masks", "unlabeled"):
        (folder / name).mkdir()
    (folder / "id2label.json").write_text('{"0": "dark", "1": "bright"}')
    for index in range(2 * num_images):
        picture = textured(*size, index)
        values = np.asarray(picture) + np.random.default_rng(index).normal(0, GRAIN, (*size[::-1], 3))
        role = "images" if index < num_images else "unlabeled"
        photo = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        photo.save(folder / role / f"{index}.jpg", quality=90)
        if role == "images":
            ids = (np.asarray(picture.convert("L").resize((200, 150))) > 128).astype(np.uint8)
            mask = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
            mask.save(folder / "masks" / f"{index}.png")


def pairs_of(folder, crop, device_views, cache):
    args = DataArguments(
        dataset=str(folder),
        crop_size=crop,
        device_views=device_views,
        selection_share=0,
        image_cache=cache and str(cache),
    )
    return PairedDataset.from_arguments(load_roles(args), args, seed=0)


def measure(folder, args, device_views):
    """Items a second of both sides, and the ratio, in each epoch after the one that fills the cache."""
    cache = folder / "cache"
    sides = {
        "decode": pairs_of(folder, args.crop, device_views, None),
        "cache": pairs_of(folder, args.crop, device_views, cache),
    }
    ratios, rates = [], {side: [] for side in sides}
    for epoch in range(args.rounds + 1):
        spent = dict.fromkeys(sides, 0.0)
        for index in range(args.images):
            items = {}
            for side, pairs in sides.items():
                start = time.process_time()
                items[side] = pairs[epoch, index, index]
                spent[side] += time.process_time() - start
            for group, views in items["decode"].items():
                for name, view in views.items():
                    assert torch.equal(view, items["cache"][group][name]), (group, name)
        if epoch > 0:
            ratios.append(spent["decode"] / spent["cache"])
            for side, seconds in spent.items():
                rates[side].append(args.images / seconds)
    return {
        "items_a_second": {side: round(statistics.median(values), 2) for side, values in rates.items()},
        "ratios": [round(ratio, 2) for ratio in sorted(ratios)],
        "cache_MB": round(sum(file.stat().st_size for file in cache.glob("*.npy")) / 1e6),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=[4000, 3000])
    parser.add_argument("--crop", type=int, default=518)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_photos(folder, args.images, tuple(args.size))
        photos = [file.stat().st_size for file in folder.glob("*/*.jpg")]
        result = {
            "images": 2 * args.images,
            "size": args.size,
            "MB_a_photo": round(statistics.mean(photos) / 1e6, 1),
            "device_views": measure(folder, args, True),
            "views_in_the_worker": measure(folder, args, False),
        }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
