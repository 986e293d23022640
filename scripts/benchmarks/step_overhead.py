"""Time and memory of a POS+MEO step over a uniform one, and of the combination over its bandwidth floor.

One process, the sides interleaved step by step. The step is forward and backward of a supervised and an
unsupervised batch through one network. Under uniform both backwards add into `.grad` and the norm is a second
pass over the gradients, as in a stock Trainer; under POS+MEO each is captured, the Gramian gives weights and
norm, and the combination is written back. The last line is one JSON object.

usage: python scripts/benchmarks/step_overhead.py [--model NAME ...] [--size PIXELS] [--batch N] [--steps N]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from pos_hf.balancing import GradientPair, pos
from pos_hf.models import build_model

PAPER = pos(min_weight=0)
CLASSES = {index: f"class {index}" for index in range(21)}
MODELS = {
    "dinov2_small": ("dinov2_dpt_small", 518),
    "resnet101": ("deeplabv3plus_resnet101", 321),
    "dinov2_large": ("dinov2_dpt_large", 518),
}


def losses(model: nn.Module, images: torch.Tensor, labels: torch.Tensor):
    for index in range(2):
        yield F.cross_entropy(model(images[index]).logits, labels[index])


def uniform_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, pair: GradientPair) -> None:
    for loss in losses(model, images, labels):
        (loss / 2).backward()
    nn.utils.clip_grad_norm_(pair.parameters, float("inf"))


def pos_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, pair: GradientPair) -> None:
    for objective, loss in zip(("supervised", "unsupervised"), losses(model, images, labels), strict=True):
        pair.restore(objective)
        loss.backward()
        pair.capture(objective)
    gramian = pair.gramian()
    weights = PAPER(gramian)
    pair.combine(weights)
    gramian.norm(*weights)


def timed(run: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds and peak bytes (0 on the CPU) of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - start, float(torch.cuda.max_memory_allocated())
    return time.perf_counter() - start, 0.0


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "quartiles": [low, high]}


def measure_step(name: str, size: int | None, batch: int, steps: int, device: torch.device) -> dict:
    preset, crop = MODELS[name]
    size = size or crop
    model = build_model(preset, CLASSES).to(device)
    pair = GradientPair([p for p in model.parameters() if p.requires_grad])
    images = torch.randn(2, batch, 3, size, size, device=device)
    labels = torch.randint(len(CLASSES), (2, batch, size, size), device=device)
    sides = {"uniform": uniform_step, "pos_meo": pos_step}
    times: dict[str, list[float]] = {side: [] for side in sides}
    peaks = dict.fromkeys(sides, 0.0)
    for step in tqdm(range(steps + 1), desc=name):
        for side, run in sides.items():
            seconds, peak = timed(lambda run=run: run(model, images, labels, pair), device)
            model.zero_grad()
            if step:  # the first of each side warms up
                times[side].append(seconds)
                peaks[side] = max(peaks[side], peak)
    ratios = [p / u for p, u in zip(times["pos_meo"], times["uniform"], strict=True)]
    parameters = sum(p.numel() for p in pair.parameters)
    return {
        "model": preset,
        "parameters": parameters,
        "size": size,
        "batch": f"{batch}+{batch}",
        "uniform_s": spread(times["uniform"]),
        "pos_meo_s": spread(times["pos_meo"]),
        "ratio": spread(ratios),
        "extra_peak_bytes": peaks["pos_meo"] - peaks["uniform"],
        "gradient_copy_bytes": 4 * parameters,
    }


def measure_combination(steps: int, device: torch.device) -> dict:
    """Gramian, weights and combination of 25M elements, over moving 5 N elements (2 N and 3 N) once.

    The floor is measured, not looked up: 5/3 of an in-place sum of the same tensors, which moves 3 N.
    """
    model = build_model("dinov2_dpt_small", CLASSES).to(device)
    pair = GradientPair([p for p in model.parameters() if p.requires_grad])
    first = [torch.randn_like(p) for p in pair.parameters]
    second = [torch.randn_like(p) for p in pair.parameters]

    def balance() -> None:
        for objective, gradient in zip(("supervised", "unsupervised"), (first, second), strict=True):
            for parameter, value in zip(pair.parameters, gradient, strict=True):
                parameter.grad = value
            pair.capture(objective)
        pair.combine(PAPER(pair.gramian()))

    def norm_pass() -> None:
        nn.utils.clip_grad_norm_(pair.parameters, float("inf"))

    times: dict[str, list[float]] = {"balance": [], "floor": [], "norm_pass": []}
    for _ in range(steps):
        times["balance"].append(timed(balance, device)[0])
        times["norm_pass"].append(timed(norm_pass, device)[0])
        times["floor"].append(5 / 3 * timed(lambda: torch._foreach_add_(first, second), device)[0])
        for tensor in (*first, *second):
            tensor.normal_()
    return {
        **{f"{name}_s": spread(values) for name, values in times.items()},
        "ratio_to_floor": spread([b / f for b, f in zip(times["balance"], times["floor"], strict=True)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--size", type=int, help="side of the crop in pixels (default: the published crop)")
    parser.add_argument("--batch", type=int, default=4, help="images of each objective")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"cpu x{torch.get_num_threads()}",
        "torch": torch.__version__,
        "combination": measure_combination(args.steps, device),
        "steps": [measure_step(name, args.size, args.batch, args.steps, device) for name in args.model],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
