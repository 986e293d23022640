"""Unlabeled items a second per core: our two paths against a re-creation of the published pipeline.

    python scripts/benchmarks/data_pipeline.py [--rounds 9] [--items 8] [--device cpu]

The published side (UniMatch V1 and V2) decodes with Pillow, makes three views and sends them as normalised
float32 with an int64 ignore map and two float32 boxes. Ours sends uint8: three views made with Pillow, or one
view and the draws of the other two, which the device then makes. One process, one thread; the sides take
turns, image by image, in random order. The last line is JSON.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pos_hf.data import PairedDataset, Views
from pos_hf.data.batches import NO_LABEL
from pos_hf.data.decoding import rows_to_dataset
from pos_hf.data.device_views import add_strong_views

# crop: (width, height, file type) of the images it is used with
WORKLOADS = {321: (500, 375, "jpg"), 518: (500, 375, "jpg"), 798: (2048, 1024, "png")}
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def published_item(path, crop):
    """One unlabeled item as the published loader makes it."""
    image = Image.open(path).convert("RGB")
    image, ignored = published_crop(image, Image.new("L", image.size), crop, fill=254)
    views = [normalised(image), *(normalised(published_strong_view(image.copy())) for _ in range(2))]
    ignore_map = torch.from_numpy(np.array(ignored)).long()
    ignore_map[ignore_map == 254] = 255
    return *views, ignore_map, *(published_box(crop) for _ in range(2))


def published_crop(image, mask, crop, fill):
    """Resize the whole image and its mask, pad (the mask with `fill`), crop and flip."""
    width, height = image.size
    long_side = random.randint(int(max(width, height) * 0.5), int(max(width, height) * 2.0))
    scale = long_side / max(width, height)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    image, mask = (
        image.resize(size, Image.Resampling.BILINEAR),
        mask.resize(size, Image.Resampling.NEAREST),
    )
    right, bottom = max(crop - image.width, 0), max(crop - image.height, 0)
    image, mask = (
        ImageOps.expand(image, (0, 0, right, bottom), 0),
        ImageOps.expand(mask, (0, 0, right, bottom), fill),
    )
    left, top = random.randint(0, image.width - crop), random.randint(0, image.height - crop)
    box = (left, top, left + crop, top + crop)
    image, mask = image.crop(box), mask.crop(box)
    return (ImageOps.mirror(image), ImageOps.mirror(mask)) if random.random() < 0.5 else (image, mask)


def published_strong_view(image):
    if random.random() < 0.8:
        for operation in torch.randperm(4).tolist():
            if operation == 3:
                hue, saturation, value = image.convert("HSV").split()
                shifted = np.array(hue) + np.uint8(int(random.uniform(-0.25, 0.25) * 255) % 256)
                image = Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")
            else:
                enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[operation]
                image = enhancer(image).enhance(random.uniform(0.5, 1.5))
    if random.random() < 0.2:
        gray = image.convert("L")
        image = Image.merge("RGB", (gray, gray, gray))
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    return image


def published_box(crop):
    mask = torch.zeros(crop, crop)
    if random.random() > 0.5:
        return mask
    area = random.uniform(0.02, 0.4) * crop**2
    while True:
        aspect = random.uniform(0.3, 1 / 0.3)
        width, height = int((area / aspect) ** 0.5), int((area * aspect) ** 0.5)
        left, top = random.randrange(crop), random.randrange(crop)
        if left + width <= crop and top + height <= crop:
            mask[top : top + height, left : left + width] = 1
            return mask


def normalised(image):
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return values.sub_(MEAN).div_(STD)


def textured(width, height, seed):
    """A picture with structure at every scale, as photographs have, so that decoding costs what it should."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), float) / cells**0.5
    return Image.fromarray(np.uint8(255 * (total - total.min()) / np.ptp(total)))


def size_of(tensors):
    return sum(tensor.element_size() * tensor.nelement() for tensor in tensors)


def time_workload(crop, rounds, items, device):
    """Seconds an item of each side, bytes an item, and the device's seconds an item."""
    width, height, kind = WORKLOADS[crop]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.{kind}" for index in range(items)]
        for index, path in enumerate(paths):
            textured(width, height, index).save(path)
        rows = rows_to_dataset([path.stem for path in paths], paths)
        mask = rows_to_dataset(["0"], [paths[0]], [paths[0]])
        pillow = PairedDataset(mask, rows, Views(crop), seed=0)
        on_device = PairedDataset(mask, rows, Views(crop, on_device=True), seed=0)
        sides = {
            "published": lambda epoch, index: published_item(paths[index], crop),
            "pillow": lambda epoch, index: pillow[epoch, NO_LABEL, index]["unlabeled"].values(),
            "device": lambda epoch, index: on_device[epoch, NO_LABEL, index]["unlabeled"].values(),
        }
        seconds = {side: [] for side in sides}
        for round_number in range(rounds + 1):
            spent = dict.fromkeys(sides, 0.0)
            for index in range(items):
                for side in random.sample(list(sides), len(sides)):
                    start = time.perf_counter()
                    sides[side](round_number, index)
                    spent[side] += time.perf_counter() - start
            if round_number > 0:  # the first round warms the caches
                for side in sides:
                    seconds[side].append(spent[side] / items)
        sent = {side: size_of(make(0, 0)) for side, make in sides.items()}
        batch = {
            name: torch.stack([on_device[0, NO_LABEL, index]["unlabeled"][name] for index in range(4)]).to(
                device
            )
            for name in ("pixel_values", "photometry")
        }
    return seconds, sent, time_device(batch, rounds)


def time_device(batch, rounds):
    """Seconds an item that the device takes to make and normalise three views."""
    device, seconds = batch["pixel_values"].device, []
    for _ in range(rounds + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for values in add_strong_views(batch).values():
            (values / 255 - MEAN.to(device)) / STD.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / len(batch["pixel_values"]))
    return seconds[2:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--crops", type=int, nargs="+", default=list(WORKLOADS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    results = {}
    for crop in args.crops:
        seconds, sent, on_device = time_workload(crop, args.rounds, args.items, args.device)
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        results[crop] = {
            "items_per_second": {side: round(1 / median, 2) for side, median in medians.items()},
            "spread": {
                side: [round(1 / max(values), 2), round(1 / min(values), 2)]
                for side, values in seconds.items()
            },
            "speedup": {
                side: round(
                    statistics.median(
                        p / o for p, o in zip(seconds["published"], seconds[side], strict=True)
                    ),
                    2,
                )
                for side in ("pillow", "device")
            },
            "megabytes": {side: round(count / 1e6, 2) for side, count in sent.items()},
            "bytes_ratio": {side: round(sent["published"] / sent[side], 1) for side in ("pillow", "device")},
            "device_ms": round(1e3 * statistics.median(on_device), 2),
        }
        print(crop, json.dumps(results[crop]))
    print(json.dumps({"device": args.device, "rounds": args.rounds, "items": args.items, "crops": results}))


if __name__ == "__main__":
    main()
