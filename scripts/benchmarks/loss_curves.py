"""Losses of the published step and of ours over the same batches from the same weights, as a figure.

    python scripts/benchmarks/loss_curves.py --model dinov2_tiny --steps 50 --out docs/loss_curves.png

Ours is `POSTrainer` with the uniform average (the published total) and, with --precision, our default on a
GPU. The published side gets each of our batches in its own form and the same random state. Its learning rate
is ours, without the published lag of one step. A third run, ours with weights moved by one rounding error
(--noise), shows how far apart two runs of one program drift. The last line is one JSON object.
"""

import argparse
import json
import tempfile

import matplotlib.pyplot as plt
import torch
from published import PublishedTraining, wire
from train_step import PRECISIONS
from transformers import TrainerCallback
from workload import WORKLOADS, build_network, draw_pictures, our_dataset, our_trainer

from pos_hf.reporting.figures import NEUTRAL, ON_ANY_GROUND

OBJECTIVES = ("supervised", "unsupervised")


class Curves(TrainerCallback):
    """Seeds every step and keeps its losses; with a published training, lets that take the same step.

    Args:
        published: gets a copy of each batch, or None.
    """

    def __init__(self, published=None):
        self.published = published
        self.ours, self.theirs = [], []

    def watch(self, trainer):
        step = trainer.training_step

        def both(model, inputs, *rest):
            number = trainer.state.global_step
            if self.published:
                torch.manual_seed(number)
                self.theirs.append(self.published.step(wire(inputs))[:2])
            torch.manual_seed(number)
            trainer.diagnostics.read(trainer.accelerator)
            total = step(model, inputs, *rest)
            statistics = trainer.diagnostics.read(trainer.accelerator)
            self.ours.append(tuple(statistics[f"{name}_loss"] for name in OBJECTIVES))
            return total

        trainer.training_step = both


def curves(workload, pictures, args, precision="fp32", noise=0.0, published=None):
    """Losses of `args.steps` steps, and the published ones where asked for."""
    torch.manual_seed(0)
    model = build_network(workload)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1 + noise * torch.randn_like(parameter)
    watch = Curves(published)
    dataset = our_dataset(pictures, args.crop or workload.crop, workload.method == "unimatch_v1", False)
    trainer = our_trainer(
        workload,
        model,
        dataset,
        args.steps,
        watch,
        per_device_train_batch_size=args.batch or workload.batch,
        strategy="uniform",
        method_options={"threshold": args.threshold},
        **PRECISIONS[precision],
    )
    watch.watch(trainer)
    trainer.train()
    return watch


def difference(left, right):
    """Largest and mean relative difference of each objective's losses."""
    left, right = torch.tensor(left, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    relative = (left - right).abs() / right.abs().clamp(min=1e-3)
    return {
        name: {"max": float(f"{relative[:, i].max():.3g}"), "mean": float(f"{relative[:, i].mean():.3g}")}
        for i, name in enumerate(OBJECTIVES)
    }


def draw(path, runs):
    """One panel an objective, one line a run."""
    plt.rcParams.update(ON_ANY_GROUND)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    styles = ({"color": NEUTRAL, "linewidth": 3, "alpha": 0.35}, {"color": "C0"}, {"color": "C1", "ls": "--"})
    for index, (panel, name) in enumerate(zip(panels, OBJECTIVES, strict=True)):
        for (title, losses), style in zip(runs.items(), styles, strict=False):
            panel.plot([row[index] for row in losses], label=title, **style)
        panel.set(title=f"{name} loss", xlabel="step")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=WORKLOADS, default="dinov2_tiny")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threshold", type=float, default=0.1, help="low, or random weights keep no pixel")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of our second run")
    parser.add_argument("--noise", type=float, default=2**-24, help="relative change of weights, third run")
    parser.add_argument("--out", help="PNG of the curves")
    return parser.parse_args(argv)


def run(args):
    """Train all runs and return their losses and differences."""
    workload = WORKLOADS[args.model]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(workload)
    if workload.method == "unimatch_v2":
        network.set_attn_implementation("eager")
    published = PublishedTraining(workload, network.to(device), args.steps, threshold=args.threshold, lag=0)
    with tempfile.TemporaryDirectory() as folder:
        pictures = draw_pictures(folder, 16 * [(250, 188)])
        exact = curves(workload, pictures, args, published=published)
        nudged = curves(workload, pictures, args, noise=args.noise)
        runs = {"published": exact.theirs, "ours, fp32": exact.ours}
        result = {
            "ours over published": difference(exact.ours, exact.theirs),
            "ours, one rounding error apart": difference(nudged.ours, exact.ours),
        }
        if args.precision != "fp32":
            other = curves(workload, pictures, args, precision=args.precision)
            runs[f"ours, {args.precision}"] = other.ours
            result[f"ours, {args.precision}, over published"] = difference(other.ours, exact.theirs)
    if args.out:
        draw(args.out, runs)
    ends = {name: [round(value, 6) for value in losses[-1]] for name, losses in runs.items()}
    return result | {"last losses": ends, "arguments": vars(args)}


def main():
    print(json.dumps(run(parse())))


if __name__ == "__main__":
    main()
