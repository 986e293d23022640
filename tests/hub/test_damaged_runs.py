"""Random damage to every file of a run: report, push and study answer in a sentence, or do without."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pos_hf.hub import evaluation_results, model_card, run_facts, run_files
from pos_hf.reporting import write_report
from pos_hf.reporting.gallery import examples, legend, pseudo_label_strip, worst
from pos_hf.run_folder import (
    COUNTS_FILE,
    LANDSCAPE_FILE,
    RUN_FILE,
    SCORES_FILE,
    STATE_FILE,
    read_landscape,
    read_runs,
)
from pos_hf.studies import PlannedRun, Study, read_study_scores
from pos_hf.studies.scores import study_cells
from tests.test_fuzz import VALUES, only_input_errors

SEED, MUTATIONS = 0, 500
PAGES = 3
"""Of so many that are accepted the whole page is drawn, which takes its time."""
QUIET_LOG = [
    {"step": step, "eval_pseudo_label_coverage": 0.5, "eval_pseudo_label_alarm": step == 100}
    for step in (50, 100)
]
WORDS = [*VALUES, 10**400, "\ud800", "\x00\n", "$x_$", "<b>", 0.5, 1e38, [{}], {"a": {"b": None}}]


def grid(points: int = 3) -> str:
    steps = [{"position": [float(step)], "loss": 1.0, "mean_iou": 0.5} for step in range(-1, 2)]
    sharpness = {"epsilon_sharpness": 0.1, "rho": 0.05, "top_eigenvalue": 3.0}
    return "".join(
        json.dumps(line) + "\n" for line in ({"points": points, "dimensions": 1}, *steps, sharpness)
    )


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Cut, emptied, with flipped bits or with a part that stands elsewhere."""
    kind = rng.choice(["cut", "bits", "bits", "empty", "swap", "zeros"])
    changed = bytearray(content)
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    if kind == "bits":
        for _ in range(rng.choice([1, 3, 20])):
            changed[rng.randrange(min(len(changed), rng.choice([80, len(changed)])))] ^= 1 << rng.randrange(8)
    elif kind == "empty":
        return b""
    elif kind == "swap":
        first, second = sorted(rng.sample(range(len(changed)), 2))
        changed[first:second] = changed[first:second][::-1]
    else:
        first = rng.randrange(len(changed))
        changed[first : first + 512] = bytes(len(changed[first : first + 512]))
    return bytes(changed)


def damaged_json(rng: random.Random, value: Any) -> Any:
    """The same with one value somewhere in it replaced, removed or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(WORDS)
    key = rng.choice([*value] if isinstance(value, dict) else range(len(value)))
    action = rng.random()
    if action < 0.15:
        del value[key]
    elif action < 0.25 and isinstance(value, dict):
        value[str(rng.choice(WORDS))[:50]] = value.pop(key)
    else:
        value[key] = damaged_json(rng, value[key])
    return value


def damage(rng: random.Random, file: Path) -> None:
    content = file.read_bytes()
    if rng.random() < 0.03:
        file.unlink()
        file.mkdir()
    elif file.suffix not in (".json", ".jsonl") or rng.random() < 0.3:
        file.write_bytes(damaged_bytes(rng, content))
    elif file.suffix == ".jsonl":
        lines = [json.loads(line) for line in content.decode().splitlines()]
        changed = damaged_json(rng, lines)
        lines = changed if isinstance(changed, list) else [changed]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        file.write_text(json.dumps(damaged_json(rng, json.loads(content))))


def restore(file: Path, content: bytes) -> None:
    if file.is_dir():
        file.rmdir()
    file.write_bytes(content)


def push(folder: Path) -> None:
    (run,) = read_runs([folder])
    facts = run_facts(run)
    run_files(folder, model_card(run, facts, "me/run"), evaluation_results(run, facts))


def look_at(folder: Path, name: str) -> None:
    """Read what a report shows of a file."""
    runs = read_runs([folder])
    if name == LANDSCAPE_FILE:
        read_landscape(folder / LANDSCAPE_FILE)
    if name in ("a picture", STATE_FILE, COUNTS_FILE):
        for read in (examples, legend, worst):
            read(runs)
        pseudo_label_strip(runs[0])


def study_of(folder: Path) -> Study:
    """Two arms with one seed each: the damaged run against a copy of the whole one."""
    runs = [PlannedRun(name, "data", 0, folder.with_name(name), {}, "") for name in ("whole", folder.name)]
    return Study("title", folder.parent, "whole", 1, ["whole", folder.name], ["data"], runs, {})


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    """With one example, one of the worst images, and curves of one quantity."""
    folder = make_run("run", hub_dataset="someone/shapes")
    for kind in ("examples", "worst"):
        for other in sorted((folder / kind).iterdir())[1:]:
            shutil.rmtree(other)
    (folder / STATE_FILE).write_text(json.dumps({"log_history": QUIET_LOG}))
    (folder / LANDSCAPE_FILE).write_text(grid())
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    shutil.copytree(folder, folder.with_name("whole"))
    return folder


def test_no_damaged_file_of_a_run_is_a_traceback(run, make_run) -> None:
    rng, accepted, pages = random.Random(SEED), 0, 0
    whole, page, study = run.with_name("whole"), run.with_name("page.html"), study_of(run)
    log = make_run("logged") / STATE_FILE
    names = [RUN_FILE, SCORES_FILE, COUNTS_FILE, STATE_FILE, LANDSCAPE_FILE, "config.json"]
    names += ["preprocessor_config.json", "model.safetensors.index.json", "a picture", "a long log"]
    pictures = sorted(file for file in run.rglob("*") if file.suffix in (".png", ".jpg"))
    for number in range(MUTATIONS):
        name = rng.choice(names)
        file = {"a picture": rng.choice(pictures), "a long log": log}.get(name, run / name)
        content = file.read_bytes()
        damage(rng, file)
        with only_input_errors((number, name)):
            look_at(file.parent if file == log else run, name)
            accepted += 1
            if pages < PAGES:
                pages += 1
                write_report([file.parent] if file == log else [run, whole][: 1 + number % 2], page)
        if name not in ("a picture", "a long log", LANDSCAPE_FILE):
            with only_input_errors((number, name)):
                push(run)
        if name in (SCORES_FILE, COUNTS_FILE):
            scores, left_out = read_study_scores(study)
            assert len(scores) + len(left_out) == 2 and ("whole", "data", 0) in scores, number
            study_cells(study, scores)
        restore(file, content)
    assert 0.1 < accepted / MUTATIONS < 0.7, accepted
