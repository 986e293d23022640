"""Images a second of evaluation at native sizes: ours beside the published loop.

    python scripts/benchmarks/evaluation.py [--model dinov2_small] [--images 24] [--scale 1.0]

The published loop (UniMatch V1 and V2) predicts one image at a time, resized to the nearest multiple of the
patch (V2), brings the prediction to the host and counts it with three numpy histograms an image. Ours batches
images of one shape and counts on the device. Both read the same files and must give the same counts; they
take turns, pass by pass. The last line is one JSON object.
"""

import argparse
import json
import random
import statistics
import tempfile
import time

import numpy as np
import torch
from data_pipeline import normalised
from PIL import Image
from torch.nn import functional as F
from workload import CLASSES, WORKLOADS, build_network, draw_pictures

from pos_hf.data.decoding import rows_to_dataset
from pos_hf.evaluation import evaluate_images
from pos_hf.models import default_image_processor

# width, height and share of Pascal VOC's most frequent sizes
SHAPES = ((500, 375), (500, 375), (500, 333), (500, 375), (375, 500), (333, 500))


def published_pass(model, pictures, multiple):
    """Intersection and union of each class, float64 [2, C], as the published loop counts them."""
    device = next(model.parameters()).device
    totals = np.zeros((2, len(CLASSES)))
    for path, mask_path in zip(pictures.images, pictures.masks, strict=True):
        pixels = normalised(Image.open(path).convert("RGB"))[None].to(device)
        target = np.array(Image.open(mask_path))
        height, width = pixels.shape[-2:]
        with torch.no_grad():
            inner = [int(side / multiple + 0.5) * multiple for side in (height, width)]
            if multiple > 1:
                pixels = F.interpolate(pixels, inner, mode="bilinear", align_corners=True)
            logits = model(pixels).logits
            if multiple > 1:
                logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=True)
            prediction = logits.argmax(dim=1)[0].cpu().numpy()
        prediction[target == 255] = 255
        bins = {"bins": np.arange(len(CLASSES) + 1)}
        both, _ = np.histogram(prediction[prediction == target], **bins)
        areas = sum(np.histogram(values, **bins)[0] for values in (prediction, target))
        totals += both, areas - both
    return totals


def our_pass(model, rows, batch_size, workers):
    """The same counts from the evaluation that `POSTrainer` and `pos-hf evaluate` run."""
    evaluation = evaluate_images(
        model, rows, default_image_processor(), batch_size=batch_size, num_workers=workers
    )
    intersection, predicted, labeled = evaluation.image_areas.sum(0).double().numpy()
    return np.stack([intersection, predicted + labeled - intersection])


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=WORKLOADS, default="dinov2_small")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--scale", type=float, default=1.0, help="of the images' sides, for a CPU")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0, help="of ours; the published loop has one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    return parser.parse_args(argv)


def run(args):
    """Time both loops and return one JSON-able result."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    model = build_network(WORKLOADS[args.model]).to(device).eval()
    theirs = build_network(WORKLOADS[args.model]).to(device).eval()
    is_vit = WORKLOADS[args.model].method == "unimatch_v2"
    if is_vit:
        theirs.set_attn_implementation("eager")
    multiple = model.config.backbone_config.patch_size if is_vit else 1
    with tempfile.TemporaryDirectory() as folder:
        sizes = [
            tuple(round(side * args.scale) for side in SHAPES[i % len(SHAPES)]) for i in range(args.images)
        ]
        pictures = draw_pictures(folder, sizes)
        rows = rows_to_dataset([path.stem for path in pictures.images], *pictures)
        sides = {
            "published": lambda: published_pass(theirs, pictures, multiple),
            "ours": lambda: our_pass(model, rows, args.batch, args.workers),
        }
        counts = {side: one_pass() for side, one_pass in sides.items()}  # warms up, too
        seconds = {side: [] for side in sides}
        cpu = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side in random.sample([*sides], len(sides)):
                start = time.perf_counter(), time.process_time()
                sides[side]()
                seconds[side].append(time.perf_counter() - start[0])
                cpu[side].append(time.process_time() - start[1])
    different = np.abs(counts["ours"] - counts["published"]).sum() / counts["published"].sum()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "images_per_second": {
            side: round(args.images / statistics.median(values), 3) for side, values in seconds.items()
        },
        "spread": {
            side: [round(args.images / max(values), 3), round(args.images / min(values), 3)]
            for side, values in seconds.items()
        },
        "ratio_wall": round(ratio(seconds), 3),
        "ratio_cpu": round(ratio(cpu), 3),
        "share_of_counts_that_differ": float(f"{different:.3g}"),
        "arguments": vars(args),
    }


def ratio(samples):
    return statistics.median(a / b for a, b in zip(samples["published"], samples["ours"], strict=True))


def main():
    print(json.dumps(run(parse())))


if __name__ == "__main__":
    main()
