"""Training a part of the model beside training all of it: parameters, memory and time of POSTrainer's steps.

    python scripts/benchmarks/lora.py                                    # DINOv2-S; on a GPU: 518, batch 8+8
    python scripts/benchmarks/lora.py --crop 112 --batch 2 --threads 1   # a size for a CPU

Three sides take turns, each a fresh `POSTrainer.train()` of a few steps a round, whose first is not timed:
all weights, LoRA in the backbone's linear layers beside the head, the head alone. The last line is one JSON
object. (The name is not peft.py, which would hide the library of that name.)
"""

import argparse
import json
import statistics
import tempfile
import time

import torch
from meters import PeakMemory, resident_bytes
from transformers import TrainerCallback
from workload import WORKLOADS, build_network, draw_pictures, our_dataset, our_trainer

from pos_hf.models.adapters import add_lora
from pos_hf.models.freezing import freeze_backbone

SIDES = ("full", "lora", "frozen")


class Steps(TrainerCallback):
    """Times every step but the first, and meters the last, which is not timed."""

    def __init__(self, device):
        self.device, self.wall, self.cpu, self.peak = device, [], [], 0

    def on_step_begin(self, args, state, control, **kwargs):
        self.is_last = state.global_step == args.max_steps - 1
        if self.is_last:
            self.meter = PeakMemory(self.device)
        self.started = self._now()

    def on_step_end(self, args, state, control, **kwargs):
        wall, cpu = (now - then for now, then in zip(self._now(), self.started, strict=True))
        if self.is_last:
            self.peak = self.meter.read()
        elif state.global_step > 1:
            self.wall.append(wall)
            self.cpu.append(cpu)

    def _now(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=WORKLOADS, default="dinov2_small")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--crop", type=int, help="side of the crop in pixels (default: the published one)")
    parser.add_argument("--batch", type=int, help="labeled images a step, and as many unlabeled")
    parser.add_argument("--threads", type=int, help="of PyTorch, on a CPU")
    parser.add_argument("--picture", type=int, nargs=2, default=(500, 375), help="width and height on disk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of a side in a round")
    return parser.parse_args(arguments)


def train_side(side, args, workload, pictures, device):
    """One round of a side: its counts, and the steps' times and memory."""
    model = build_network(workload)
    if side == "lora":
        add_lora(model, {"r": args.rank})
    elif side == "frozen":
        freeze_backbone(model)
    steps = Steps(device)
    trainer = our_trainer(
        workload,
        model,
        our_dataset(pictures, args.crop, False, device.type == "cuda"),
        args.steps,
        steps,
        per_device_train_batch_size=args.batch,
    )
    trainer.train()
    resident = resident_bytes(trainer.model, trainer.teacher.model, trainer.optimizer.optimizer)
    trained = model.num_parameters(only_trainable=True)
    return {"trained": trained, "resident_MB": resident / 1e6, "step_MB": steps.peak / 1e6}, steps


def run(args):
    """Measure and return one JSON-able result."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    workload = WORKLOADS[args.model]
    args.crop, args.batch = args.crop or workload.crop, args.batch or workload.batch
    counts, times = {}, {side: {"wall": [], "cpu": []} for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        pictures = draw_pictures(folder, 16 * [args.picture])
        for _ in range(args.rounds):
            for side in SIDES:
                counts[side], steps = train_side(side, args, workload, pictures, device)
                times[side]["wall"].append(statistics.median(steps.wall))
                times[side]["cpu"].append(statistics.median(steps.cpu))
    ratios = {}
    for side in SIDES[1:]:
        for clock in ("wall", "cpu"):
            rounds = zip(times[side][clock], times["full"][clock], strict=True)
            ratios[f"{side} over full, {clock}"] = [round(part / whole, 3) for part, whole in rounds]
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {threads} threads"
    return {"device": name, "arguments": vars(args), "sides": counts, "times": times, "ratios": ratios}


def main():
    result = run(parse())
    for side, numbers in result["sides"].items():
        print(
            f"{side:<7} {numbers['trained'] / 1e6:6.2f} M trained, {numbers['resident_MB']:8.1f} MB held, "
            f"{numbers['step_MB']:8.1f} MB more at a step's peak"
        )
    for name, rounds in result["ratios"].items():
        print(f"{name:<24} {statistics.median(rounds):.3f}  ({min(rounds):.3f}-{max(rounds):.3f})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
