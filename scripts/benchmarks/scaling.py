"""Step time on 1 to 64 GPUs and GPU hours of the published runs, from parts: a simulation, not a measurement.

    python scripts/benchmarks/scaling.py --step_ms 180 --link_GBs 200

What a step computes, moves and waits for is taken apart: forward and backward of each objective, one
communication a backward, the update. Communication of one backward overlaps with that backward alone (DDP and
FSDP2 wait at its end), the last bucket with nothing. Bytes a step are counted from the strategies' code; the
time of a step on one GPU (--step_ms) is the output of train_step.py there, the link's rate and latency are
the machine's. All three are assumptions until they are measured. The last line is one JSON object.
"""

import argparse
import json
from typing import NamedTuple

GPUS = (1, 2, 4, 8, 16, 32, 64)


class Run(NamedTuple):
    """A published run: millions of parameters, steps, images of each set a step, GPUs, hours (its logs)."""

    parameters: float
    steps: int
    batch: int
    gpus: int
    hours: float


# UniMatch V1 and V2 at their published batch and schedule, for the split with the fewest labels
RUNS = {
    "V1 R101 Pascal 321": Run(59.5, 104_880, 8, 4, 20.0),
    "V1 R101 Cityscapes 801": Run(59.5, 83_760, 8, 4, 17.5),
    "V1 XC65 COCO 513": Run(54.7, 441_000, 8, 4, 52.0),
    "V2 S Pascal 518": Run(24.8, 39_300, 16, 4, 5.7),
    "V2 B Pascal 518": Run(97.5, 39_300, 16, 4, 13.2),
    "V2 B Cityscapes 798": Run(97.5, 62_820, 8, 4, 47.4),
    "V2 B COCO 518": Run(97.5, 147_600, 16, 4, 50.0),
}


def exchanged(strategy, engine, shared_forward):
    """Elements a rank exchanges in one step, over N (W - 1) / W: (within backwards, after them).

    A ring's all-reduce moves 2, a reduce-scatter or an all-gather 1. DDP reduces in each backward, of which
    there are two: one an objective, or with V1's shared forward one a forward. Under POS that forward has two
    backwards, and both gradients are reduced once at the end. FSDP2 gathers the parameters for each forward
    and backward of the student and for the teacher's forward, and scatters the gradients of each backward.
    """
    if engine == "ddp":
        return (0, 4) if shared_forward and strategy != "uniform" else (4, 0)
    return 3 * 2 + 1, 0


def step_seconds(run, gpus, strategy, engine, args, shared_forward=False):
    """Seconds of one step on `gpus` GPUs at a constant batch a GPU."""
    compute = args.step_ms / 1e3
    if gpus == 1:
        return compute
    share = (gpus - 1) / gpus
    rate = args.link_GBs if gpus <= args.gpus_a_node else args.network_GBs
    nbytes = 4 * run.parameters * 1e6 * share
    within, after = (count * nbytes / (rate * 1e9) for count in exchanged(strategy, engine, shared_forward))
    # each objective's messages hide behind its own backward, but for the last bucket
    backward = compute * args.backward_share
    last_bucket = 2 * args.bucket_MB * 1e6 / (rate * 1e9) * share
    waited = max(within - backward, last_bucket if within else 0.0)
    return compute + waited + after + args.latency_us * 1e-6 * gpus


def scaling(args):
    """Milliseconds and efficiency over the numbers of GPUs, for each engine and strategy."""
    table = {}
    for engine in ("ddp", "fsdp2"):
        for strategy in ("uniform", "pos"):
            for shared in (False, True) if engine == "ddp" else (False,):
                name = f"{engine}, {strategy}" + (", shared forward" if shared else "")
                run = Run(args.parameters, 0, 0, 0, 0)
                seconds = [step_seconds(run, gpus, strategy, engine, args, shared) for gpus in GPUS]
                table[name] = {
                    "exchanged_over_N": sum(exchanged(strategy, engine, shared)),
                    "step_ms": [round(1e3 * value, 1) for value in seconds],
                    "efficiency": [round(seconds[0] / value, 3) for value in seconds],
                }
    return table


def gpu_hours(speedup):
    """GPU hours of the published runs, and what a speed-up of the step would leave of them."""
    return {
        name: {
            "published": round(run.gpus * run.hours, 1),
            "published_s_a_step": round(3600 * run.hours / run.steps, 2),
            f"at {speedup} times the speed": round(run.gpus * run.hours / speedup, 1),
        }
        for name, run in RUNS.items()
    }


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step_ms", type=float, default=180.0, help="step on one GPU; assumed")
    parser.add_argument("--backward_share", type=float, default=0.6, help="of the step; assumed")
    parser.add_argument("--parameters", type=float, default=24.8, help="millions, trained")
    parser.add_argument("--link_GBs", type=float, default=200.0, help="all-reduce rate in a node; assumed")
    parser.add_argument("--network_GBs", type=float, default=20.0, help="the same between nodes; assumed")
    parser.add_argument("--gpus_a_node", type=int, default=8)
    parser.add_argument("--bucket_MB", type=float, default=25.0, help="DDP's bucket")
    parser.add_argument(
        "--latency_us", type=float, default=10.0, help="of a step's collectives a GPU; assumed"
    )
    parser.add_argument(
        "--speedup", type=float, default=3.0, help="over the published step; the bar, assumed"
    )
    return parser.parse_args(argv)


def main():
    args = parse()
    table, hours = scaling(args), gpu_hours(args.speedup)
    print(f"{'GPUs':<30}" + "".join(f"{gpus:>8}" for gpus in GPUS))
    for name, row in table.items():
        print(f"{name:<30}" + "".join(f"{value:8.1f}" for value in row["step_ms"]))
    for name, row in hours.items():
        print(f"{name:<30}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    print(json.dumps({"assumed": vars(args), "step": table, "gpu_hours": hours}))


if __name__ == "__main__":
    main()
