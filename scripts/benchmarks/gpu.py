"""What only a GPU can prove: correctness and speed, part by part, in under 9 minutes on one CUDA GPU.

    make gpu                                            # runs/gpu.jsonl; on a CPU a small size of it
    python scripts/benchmarks/gpu.py --parts numbers host_syncs

Every part runs in a process of its own and adds one line of JSON to the file as soon as it is known; a part
that the file holds for this machine is not run again. What needs CUDA says `not measured` without. The last
lines are a table for docs/performance.md and the fastest precision, which should be the default.
"""

import argparse
import copy
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pos_hf.cli.parsing import importing

with importing():
    import torch
    from torch.nn.functional import cosine_similarity
    from transformers import TrainerCallback
    from workload import WORKLOADS, build_network, draw_pictures, our_dataset, our_trainer

    from pos_hf.balancing import pos
    from pos_hf.balancing.gradients import GradientPair
    from pos_hf.data.batches import collate
    from pos_hf.data.device_views import add_strong_views
    from pos_hf.methods import METHODS, get_method

HERE = Path(__file__).parent
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SECONDS = 150  # of one part at most
NOT_MEASURED = {"measured": False, "why": "needs CUDA"}


class Callback(TrainerCallback):
    """Calls functions at the Trainer's events of their names."""

    def __init__(self, **functions):
        vars(self).update(functions)


def trainer_on(workload, steps, callback=None, **arguments):
    """A `POSTrainer` on pictures at a small crop, the same each time."""
    folder = tempfile.mkdtemp()
    recipe = WORKLOADS[workload]
    crop = recipe.crop if recipe.crop < 100 else 98
    dataset = our_dataset(draw_pictures(folder, 8 * [(160, 120)]), crop, recipe.method == "unimatch_v1", CUDA)
    options = {"per_device_train_batch_size": 2, "method_options": {"threshold": 0.02}, "bf16": False}
    return our_trainer(
        recipe, build_network(recipe), dataset, steps, callback or Callback(), **(options | arguments)
    )


def digest(trainer):
    """Of the trained weights, to the last bit."""
    hashed = hashlib.sha256()
    for value in trainer.accelerator.get_state_dict(trainer.model).values():
        hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def losses_and_pair(device, dtype, autocast):
    """Losses, both gradients and their weights of one FixMatch step, whose views need no random numbers."""
    recipe = WORKLOADS["dinov2_tiny"]
    dataset = our_dataset(draw_pictures(tempfile.mkdtemp(), 4 * [(160, 120)]), 70, False, False)
    batch = collate([dataset[key] for key in [*dataset.sampler(0)][:4]])
    mean, std = (
        torch.tensor(v, dtype=dtype, device=device)[:, None, None]
        for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    for group in batch.values():
        for name, value in group.items():
            value = value.to(device)
            group[name] = (value.to(dtype) / 255 - mean) / std if value.dtype == torch.uint8 else value
    student = build_network(recipe).to(device, dtype).train()
    teacher = copy.deepcopy(student).eval()
    method, pair, losses = (
        get_method("fixmatch", threshold=0.02).to(device),
        GradientPair([*student.parameters()]),
        {},
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for term in method.losses(student, teacher, batch):
            pair.restore(term.objective)
            term.loss.backward(retain_graph=term.retain_graph)
            pair.capture(term.objective)
            losses[term.objective] = term.loss.item()
    weights = pos(min_weight=0)(pair.gramian())
    flat = {
        objective: torch.cat([g.double().cpu().flatten() for g in pair.gradients(objective) if g is not None])
        for objective in losses
    }
    return losses, flat, [float(weight) for weight in weights]


def numbers():
    """Losses, gradients, weights here in fp32 and bf16 against float64 on the CPU."""
    truth_losses, truth, truth_weights = losses_and_pair(torch.device("cpu"), torch.float64, False)
    found = {}
    for name, autocast, tight in (("fp32", False, 1e-3), ("bf16", True, 0.1)):
        losses, gradients, weights = losses_and_pair(DEVICE, torch.float32, autocast)
        numbers = {
            "loss": max(abs(losses[o] / truth_losses[o] - 1) for o in truth),
            "gradient": max(float((gradients[o] - truth[o]).norm() / truth[o].norm()) for o in truth),
            "cosine": min(float(cosine_similarity(gradients[o], truth[o], 0)) for o in truth),
            "weights": max(abs(a - b) for a, b in zip(weights, truth_weights, strict=True)),
        }
        found[name] = {key: float(f"{value:.3g}") for key, value in numbers.items()}
        found[name]["ok"] = numbers["loss"] < tight and numbers["gradient"] < 3 * tight
    return found | {"ok": all(part["ok"] for part in found.values())}


def views():
    """Strong views made here against the same draws on the CPU."""
    dataset = our_dataset(draw_pictures(tempfile.mkdtemp(), 8 * [(500, 375)]), 322, False, True)
    drawn = collate([dataset[key] for key in [*dataset.sampler(0)][:8]])["unlabeled"]
    there = add_strong_views({name: value.cuda() for name, value in drawn.items()})[
        "strong_pixel_values"
    ].cpu()
    apart = (there.int() - add_strong_views(drawn)["strong_pixel_values"].int()).abs()
    share = float((apart > 1).double().mean())
    return {"share_of_pixels_apart_by_more_than_1": share, "ok": share < 1e-3}


def host_syncs():
    """20 steps of each method and strategy in which nothing waits for the GPU."""

    def watch(args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("error" if state.global_step > 0 else 0)

    def rest(*args, **kwargs):
        torch.cuda.set_sync_debug_mode(0)

    waits = {}
    for method in METHODS:
        for strategy in ("uniform", "pos"):
            callback = Callback(on_step_begin=watch, on_step_end=rest)
            options = {"method": method, "strategy": strategy, "method_options": None}
            try:
                trainer_on("resnet_tiny", 20, callback, **options).train()
            except RuntimeError as error:
                waits[f"{method}, {strategy}"] = str(error).splitlines()[0]
            rest()
    return {"waits": waits, "ok": not waits}


def fp16():
    """A loss scale that overflows: steps are skipped until it has come down, and weights stay finite."""
    trainer = trainer_on("dinov2_tiny", 30, fp16=True, logging_steps=30)
    trainer.accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30)
    trainer.train()
    skipped = next(entry["skipped_steps"] for entry in trainer.state.log_history if "skipped_steps" in entry)
    finite = all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    return {"skipped_steps": skipped, "finite": finite, "ok": finite and 0 < skipped < 30}


def compiled():
    """Five steps compiled and not: the losses agree."""
    log = {}
    for name in (False, True):
        backend = {"torch_compile_backend": "inductor" if CUDA else "eager"} if name else {}
        trainer = trainer_on("dinov2_tiny", 5, torch_compile=name, logging_steps=1, **backend)
        trainer.train()
        log[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    apart = max(abs(a - b) / abs(a) for a, b in zip(log[False], log[True], strict=True))
    return {"losses_apart": float(f"{apart:.3g}"), "ok": apart < 1e-2}


def resume():
    """Six steps in one go and interrupted after three: the same bits."""
    folder = tempfile.mkdtemp()
    saving = {"save_strategy": "steps", "save_steps": 3, "output_dir": folder}
    whole = trainer_on("dinov2_tiny", 6, **saving)
    whole.train()
    again = trainer_on("dinov2_tiny", 6, **saving)
    again.train(resume_from_checkpoint=f"{folder}/checkpoint-3")
    return {"digests": [digest(whole), digest(again)], "ok": digest(whole) == digest(again)}


def one_run(engine):
    """Four steps; `engine` is none, ddp or fsdp2."""
    sharded = {"fsdp": True, "fsdp_config": {"version": 2}} if engine == "fsdp2" else {}
    trainer = trainer_on("dinov2_tiny", 4, **sharded)
    trainer.train()
    return {"digest": digest(trainer), "distributed": str(trainer.accelerator.distributed_type)}


def world_of_one():
    """DDP and FSDP2 in a world of one process give the bits of a plain run."""
    found = {"none": child("one_run", "none")}
    for engine in ("ddp", "fsdp2") if CUDA else ("ddp",):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
        found[engine] = child("one_run", engine, launcher=launcher)
    digests = {result.get("digest") for result in found.values()}
    return {"runs": found, "ok": len(digests) == 1 and None not in digests}


def speed(script, *arguments):
    """The JSON line of a benchmark beside this file."""
    return last_json([sys.executable, str(HERE / script), *arguments])


SMALL = ["--crop", "42", "--batch", "2", "--picture", "64", "48", "--rounds", "2"]
SMALL += ["--warm_up", "1", "--section_rounds", "1", "--alone", "1"]
STEPS = ["--rounds", "8", "--workers", "4"]


def step(model, *arguments):
    if CUDA:
        return speed("train_step.py", "--model", model, *STEPS, *arguments)
    return speed(
        "train_step.py", "--model", "resnet_tiny" if "resnet" in model else "dinov2_tiny", *SMALL, *arguments
    )


PARTS = {
    "numbers": numbers,
    "views": views,
    "host_syncs": host_syncs,
    "fp16": fp16,
    "compiled": compiled,
    "resume": resume,
    "world_of_one": world_of_one,
    "step dinov2_small": lambda: step("dinov2_small"),
    "step resnet101": lambda: step("resnet101", "--channels_last"),
    "step dinov2_small fp32": lambda: step("dinov2_small", "--precision", "fp32", "--without_published"),
    "step dinov2_small bf16+compile": lambda: step(
        "dinov2_small", "--precision", "bf16+compile", "--without_published"
    ),
    "step dinov2_base": lambda: step("dinov2_base"),
    "evaluation": lambda: speed(
        "evaluation.py",
        *([] if CUDA else ["--model", "dinov2_tiny", "--images", "4", "--scale", "0.1", "--rounds", "1"]),
    ),
}

NEED_CUDA = ("views", "host_syncs", "fp16", "step dinov2_small bf16+compile", "step dinov2_base")
START_PROCESSES = ("world_of_one", "step", "evaluation")  # a process of their own would do nothing else


def measure(part):
    if part in NEED_CUDA and not CUDA:
        return NOT_MEASURED
    return PARTS[part]() if part.startswith(START_PROCESSES) else child(part)


def last_json(command):
    """The last line of a command's output, read."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=HERE)
    except subprocess.TimeoutExpired:
        return {"ok": False, "why": f"took longer than {SECONDS} s"}
    if done.returncode != 0:
        return {"ok": False, "why": done.stderr.strip().splitlines()[-1:] or "no output"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def child(name, *arguments, launcher=()):
    """A function of this file in a process of its own."""
    return last_json([sys.executable, *launcher, __file__, "--only", name, *arguments])


def machine():
    return torch.cuda.get_device_name() if CUDA else f"cpu, {os.cpu_count()} cores, small sizes"


def table(results):
    """Markdown rows of what is known, and the fastest precision."""
    lines = ["| part | result |", "| --- | --- |"]
    rates = {}
    for name, result in results.items():
        if result.get("measured") is False:
            shown = "not measured"
        elif "sides" in result:
            rates[name] = {side: n["images_per_second"] for side, n in result["sides"].items()}
            shown = ", ".join(f"{side} {rate:.1f} images/s" for side, rate in rates[name].items())
        else:
            shown = {True: "ok", False: f"FAILED: {result}", None: json.dumps(result)}[result.get("ok")]
        lines.append(f"| {name} | {shown} |")
    ours = {name: sides["pos"] for name, sides in rates.items() if "dinov2_small" in name}
    if ours:
        lines.append(f"\nfastest of ours on dinov2_small: {max(ours, key=ours.__getitem__)}")
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "runs" / "gpu.jsonl")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse()
    if args.only:
        name, *arguments = args.only
        print(json.dumps((PARTS.get(name) or globals()[name])(*arguments)))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    known = {line["part"]: line["result"] for line in map(json.loads, lines) if line["machine"] == machine()}
    for number, name in enumerate(args.parts, 1):
        if name in known:
            continue
        print(f"[{number}/{len(args.parts)}] {name}", flush=True)
        start = time.monotonic()
        known[name] = measure(name)
        seconds = round(time.monotonic() - start, 1)
        line = {
            "part": name,
            "machine": machine(),
            "torch": torch.__version__,
            "seconds": seconds,
            "result": known[name],
        }
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(table({name: known[name] for name in args.parts}))
    sys.exit(any(known[name].get("ok") is False for name in args.parts))


if __name__ == "__main__":
    main()
