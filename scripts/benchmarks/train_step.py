"""Training steps of `POSTrainer` beside the published step, in one process, taking turns step by step.

    python scripts/benchmarks/train_step.py --model dinov2_small                  # on a GPU: 518, batch 8+8
    python scripts/benchmarks/train_step.py --model resnet101 --channels_last
    python scripts/benchmarks/train_step.py --crop 112 --batch 2 --threads 1      # a size for a CPU

Our side is `POSTrainer.train()` itself, data loading and callbacks included; its strategy changes from step
to step. The published side (published.py) is the uniform step with its own loader, network and optimizer.
Without workers each side makes its data within its step; with workers they make it while the other side runs,
and the wait for data is measured apart, in steps of ours that follow each other. The last line is one JSON
object.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict

import torch
from meters import PeakMemory, Sections, matrix_rate, resident_bytes
from published import PublishedDataset, PublishedTraining
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import TrainerCallback
from workload import WORKLOADS, build_network, draw_pictures, our_dataset, our_trainer

from pos_hf.balancing import pos, uniform

STRATEGIES = {"uniform": uniform, "pos": pos(), "pos_paper": pos(min_weight=0)}
PUBLISHED = "published"
SIDES = (PUBLISHED, *STRATEGIES)
PRECISIONS = {
    "default": {},
    "fp32": {"bf16": False},
    "tf32": {"bf16": False, "tf32": True},
    "bf16": {"bf16": True},
    "bf16+compile": {"bf16": True, "torch_compile": True},
}


class TakingTurns(TrainerCallback):
    """Runs the published step between ours, gives ours its strategy, and times every step of each side.

    Args:
        plan: (side, phase) of every step; ours are all but `PUBLISHED`. Phases: warm_up, timed, sections,
            memory, alone.
        sections: for the breakdown.
        published: its training.
        batches: its loader's iterator.
    """

    def __init__(self, plan, sections, published, batches):
        self.plan, self.sections, self.published, self.batches = list(plan), sections, published, batches
        self.wall, self.cpu = defaultdict(list), defaultdict(list)
        self.parts = defaultdict(list)
        self.alone, self.waits, self.memory = [], [], {}
        self.bar = tqdm(total=len(self.plan))

    def watch(self, trainer):
        """Count the parts of a trainer's step."""
        self.trainer = trainer
        for owner, method, name in (
            (trainer, "get_batch_samples", "data"),
            (trainer, "device_batch", "views"),
            (trainer, "training_step", "student"),
            (trainer.integration, "combine", "balancing"),
            (trainer, "_get_grad_norm", "balancing_norm"),
        ):
            self.sections.wrap(owner, method, name)
        if trainer.teacher:
            self.sections.wrap(trainer.teacher, "update", "ema")
            self.sections.wrap(trainer.teacher.model, "forward", "teacher")

    def on_train_begin(self, args, state, control, **kwargs):
        self.sections.wrap(self.trainer.optimizer, "step", "optimizer")
        for method in ("restore", "capture"):
            self.sections.wrap(self.trainer.integration.gradients, method, "balancing")
        self._next()

    def on_step_end(self, args, state, control, **kwargs):
        self._finish()
        self._next()

    def _next(self):
        while self.plan and self.plan[0][0] == PUBLISHED:
            self._start()
            with self.sections("data"):
                batch = next(self.batches)
            matmul = torch.backends.cuda.matmul
            ours, matmul.fp32_precision = matmul.fp32_precision, "ieee"  # TF32 is a setting of the process
            self.published.step(batch)
            matmul.fp32_precision = ours
            self._finish()
        if self.plan:
            strategy = STRATEGIES[self.plan[0][0]]
            integration = self.trainer.integration
            integration.strategy, integration.holds_pair = strategy, strategy is not uniform
            self._start()

    def _start(self):
        phase = self.plan[0][1]
        self.sections.exact = phase == "sections"
        self.sections.take()
        if phase == "memory":
            self.meter = PeakMemory(self.sections.device)
        self._synchronize()
        self.started = time.perf_counter(), time.process_time()

    def _finish(self):
        self._synchronize()
        wall, cpu = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        side, phase = self.plan.pop(0)
        self.bar.update()
        if phase == "timed":
            self.wall[side].append(wall)
            self.cpu[side].append(cpu)
        elif phase == "sections":
            self.parts[side].append(self._breakdown(wall))
        elif phase == "memory":
            self.memory[side] = self.meter.read()
        elif phase == "alone":
            self.alone.append(wall)
            self.waits.append(self.sections.seconds["data"])

    def _breakdown(self, wall):
        """Milliseconds of the parts of one step, each part without those inside it."""
        parts = self.sections.take()
        if "balancing" in parts or "balancing_norm" in parts:  # ours: the student's part holds three others
            parts["student"] -= sum(parts.get(name, 0.0) for name in ("views", "teacher", "balancing"))
            parts["balancing"] = parts.get("balancing", 0.0) + parts.pop("balancing_norm", 0.0)
        parts["rest"] = wall - sum(parts.values())
        return {name: 1e3 * seconds for name, seconds in parts.items()}

    def _synchronize(self):
        if self.sections.device.type == "cuda":
            torch.cuda.synchronize()


def make_plan(args):
    plan = [(side, "warm_up") for _ in range(args.warm_up) for side in args.sides]
    for phase, rounds in (("timed", args.rounds), ("sections", args.section_rounds), ("memory", 1)):
        for _ in range(rounds):
            plan += [(side, phase) for side in random.sample(args.sides, len(args.sides))]
    # the Trainer begins and ends with steps of ours
    return [*plan, *(("pos", "alone") for _ in range(args.alone))]


def spread(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)]}


def summarise(turns, images, flops, rates, resident):
    """Images a second, parts, memory and rates of each side, and the ratios the bars are about."""
    sides = {}
    for side, seconds in turns.wall.items():
        parts = turns.parts[side]
        group = PUBLISHED if side == PUBLISHED else "ours"
        sides[side] = {
            "images_per_second": round(images / statistics.median(seconds), 3),
            "step_s": spread(seconds),
            "cpu_s": spread(turns.cpu[side]),
            "parts_ms": {name: round(statistics.median(p[name] for p in parts), 2) for name in parts[0]},
            "peak_MB": round((resident[group] + turns.memory[side]) / 1e6, 1),
            "model_TFLOP_per_s": round(flops / statistics.median(seconds) / 1e12, 3),
            "share_of_matrix_rate": round(flops / statistics.median(seconds) / rates[group], 3),
        }
    pairs = {"pos over uniform": ("pos", "uniform"), "pos_paper over uniform": ("pos_paper", "uniform")}
    if PUBLISHED in sides:
        pairs |= {f"published over {side}": (PUBLISHED, side) for side in STRATEGIES}
    ratios = {}
    for name, (above, below) in pairs.items():
        for clock, samples in (("wall", turns.wall), ("cpu", turns.cpu)):
            rows = zip(samples[above], samples[below], strict=True)
            ratios[f"{name}, {clock}"] = spread([a / b for a, b in rows])
    return sides, ratios


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=WORKLOADS, default="dinov2_small")
    parser.add_argument("--crop", type=int, help="side of the crop in pixels (default: the published one)")
    parser.add_argument("--batch", type=int, help="labeled images a step, and as many unlabeled")
    parser.add_argument("--precision", choices=PRECISIONS, default="default", help="of our side")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="of our side")
    parser.add_argument("--channels_last", action="store_true", help="of our side")
    parser.add_argument("--optimizer", help="optim of our side (default: fused)")
    parser.add_argument("--views", choices=("pillow", "device"), help="default: device on a GPU")
    parser.add_argument("--method_options", type=json.loads, help="JSON, for V1's cheaper variants")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of PyTorch, on a CPU")
    parser.add_argument("--picture", type=int, nargs=2, default=(500, 375), help="width and height on disk")
    parser.add_argument("--warm_up", type=int, default=2, help="rounds")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds of one step a side")
    parser.add_argument("--section_rounds", type=int, default=4, help="rounds for the breakdown")
    parser.add_argument("--alone", type=int, default=8, help="steps of ours in a row, for the wait for data")
    parser.add_argument("--without_published", dest="sides", action="store_const", const=[*STRATEGIES])
    parser.set_defaults(sides=[*SIDES])
    return parser.parse_args()


def make_sides(args, workload, crop, batch, device, folder):
    """Both sides on the same pictures: the turns they take, and our trainer, which runs them."""
    second_draw, is_vit = workload.method == "unimatch_v1", workload.method == "unimatch_v2"
    device_views = args.views == "device" or (args.views is None and device.type == "cuda")
    plan, sections = make_plan(args), Sections(device)
    pictures = draw_pictures(folder, 16 * [args.picture])
    network, model = build_network(workload), build_network(workload)
    if is_vit:
        network.set_attn_implementation("eager")
        model.set_attn_implementation(args.attention)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(
        PublishedDataset(pictures.images, pictures.masks, crop, second_draw),
        batch_size=batch,
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
    )
    published = PublishedTraining(workload, network.to(device), len(plan), sections)
    turns = TakingTurns(plan, sections, published, iter(loader))
    arguments = PRECISIONS[args.precision] | ({"optim": args.optimizer} if args.optimizer else {})
    trainer = our_trainer(
        workload,
        model,
        our_dataset(pictures, crop, second_draw, device_views),
        sum(side != PUBLISHED for side, _ in plan),
        turns,
        per_device_train_batch_size=batch,
        dataloader_num_workers=args.workers,
        method_options=args.method_options,
        **arguments,
    )
    turns.watch(trainer)
    return turns, trainer


def run(args):
    """Measure and return one JSON-able result."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    random.seed(0)
    workload = WORKLOADS[args.model]
    crop, batch = args.crop or workload.crop, args.batch or workload.batch
    rates = {PUBLISHED: matrix_rate(device, torch.float32)}
    with tempfile.TemporaryDirectory() as folder:
        turns, trainer = make_sides(args, workload, crop, batch, device, folder)
        trainer.train()
        turns.bar.close()
        with FlopCounterMode(display=False) as counter:
            turns.published.step(next(turns.batches))
    rates["ours"] = matrix_rate(device, torch.bfloat16 if trainer.args.bf16 else torch.float32)
    published, teacher = turns.published, trainer.teacher.model if trainer.teacher else None
    resident = {
        PUBLISHED: resident_bytes(published.model, published.teacher, published.optimizer),
        "ours": resident_bytes(trainer.model, teacher, trainer.optimizer.optimizer),
    }
    sides, ratios = summarise(turns, 2 * batch, counter.get_total_flops(), rates, resident)
    threads = torch.get_num_threads()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {threads} threads",
        "torch": torch.__version__,
        "arguments": vars(args) | {"crop": crop, "batch": batch},
        "model_GFLOP_a_step": round(counter.get_total_flops() / 1e9, 1),
        "sides": sides,
        "ratios": ratios,
        "data_wait_share": round(sum(turns.waits) / sum(turns.alone), 4) if turns.alone else None,
    }


def main():
    result = run(parse())
    for side, numbers in result["sides"].items():
        print(f"{side:<10} {numbers['images_per_second']:9.2f} images/s", json.dumps(numbers["parts_ms"]))
    for name, numbers in result["ratios"].items():
        print(f"{name:<32} {numbers['median']:.3f}  quartiles {numbers['quartiles']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
