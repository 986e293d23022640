"""What the order of a model's weights in memory is worth on a CPU: channels last, as the commands have it,
over PyTorch's own.

    python scripts/benchmarks/layout.py --model deeplabv3plus_tiny --crop 64 --batch 8 [--rounds 30]

One process, one thread, processor time, in turns: a training forward with its backward, and an evaluation's
forward. The last line is JSON: the medians of the ratios of a round, with their quartiles.
"""

import argparse
import copy
import json
import statistics
import time

import torch
from torch.nn.functional import cross_entropy

from pos_hf import build_model
from pos_hf.models.layout import lay_out

NUM_CLASSES = 12


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="deeplabv3plus_tiny")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    return parser.parse_args(arguments)


def train(model, images, labels):
    cross_entropy(model.train()(images).logits, labels).backward()
    model.zero_grad()


@torch.no_grad()
def predict(model, images, _):
    model.eval()(images)


def run(args):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = build_model(args.model, {index: str(index) for index in range(NUM_CLASSES)})
    laid_out = copy.deepcopy(plain)
    lay_out(laid_out, torch.device("cpu"))
    images = torch.randn(args.batch, 3, args.crop, args.crop)
    labels = torch.randint(NUM_CLASSES, (args.batch, args.crop, args.crop))
    result = {}
    for task in (train, predict):
        ratios = []
        for _ in range(1 + args.rounds):
            seconds = []
            for model in (plain, laid_out):
                start = time.process_time()
                task(model, images, labels)
                seconds.append(time.process_time() - start)
            ratios.append(seconds[1] / seconds[0])
        quartiles = statistics.quantiles(ratios[1:], n=4)  # the first round warms up
        result[task.__name__] = [round(value, 3) for value in quartiles]
    return result


if __name__ == "__main__":
    print(json.dumps(run(parse())))
