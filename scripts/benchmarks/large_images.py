"""Memory of `pos-hf predict` on an image of 48 million pixels, above the model.

A network that costs next to nothing predicts a small image, then a large one in windows, in one process: the
difference of the two peaks (resource.getrusage) is what the large image takes. Reading it, its mask and its
overlay are part of it. The last line is one JSON object.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from pos_hf.cli.main import main as pos_hf
from pos_hf.models import default_image_processor


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(8000, 6000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--options", default="--window 512", help="of pos-hf predict")
    return parser.parse_args(argv)


def save_model(folder, classes):
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=1,
        depths=[1],
        sr_ratios=[8],
        hidden_sizes=[8],
        patch_sizes=[7],
        strides=[4],
        num_attention_heads=[1],
        mlp_ratios=[1],
        decoder_hidden_size=8,
        id2label={i: f"class {i}" for i in range(classes)},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    default_image_processor().save_pretrained(folder)


def save_picture(file, width, height):
    """Blocks of random colours, which a JPEG holds in a few megabytes."""
    colours = np.random.default_rng(0).integers(0, 256, (-(-height // 64), -(-width // 64), 3), np.uint8)
    picture = Image.fromarray(colours).resize((64 * colours.shape[1], 64 * colours.shape[0]), 0)
    picture.crop((0, 0, width, height)).save(file)


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB


def predict(folder, name, options):
    with contextlib.redirect_stdout(io.StringIO()):
        code = pos_hf(
            ["predict", f"{folder}/model", f"{folder}/{name}", "--out", f"{folder}/{name}_out", *options]
        )
    assert code == 0


def run(args):
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", args.classes)
        Image.new("RGB", (160, 120)).save(f"{folder}/small.jpg")
        options = args.options.split()
        predict(folder, "small.jpg", options)
        before = peak_bytes()
        # in a process of its own, so that making the picture is no part of the peak
        child = multiprocessing.get_context("fork").Process(
            target=save_picture, args=(f"{folder}/large.jpg", *args.size)
        )
        child.start()
        child.join()
        start = time.process_time()
        predict(folder, "large.jpg", options)
        seconds = time.process_time() - start
        above = peak_bytes() - before
    return {
        "size": list(args.size),
        "classes": args.classes,
        "options": args.options,
        "GB_above_the_model": round(above / 1e9, 2),
        "processor_seconds": round(seconds, 1),
    }


def main():
    result = run(parse())
    print(f"{result['GB_above_the_model']} GB above the model")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
