"""A study: what its file plans, what is refused, what is run again, and every number of its table."""

import csv
import json
import os
import re
import signal
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch.utils.data import DataLoader, DistributedSampler

from pos_hf.cli.main import main
from pos_hf.data import PairSampler
from pos_hf.errors import InputError
from pos_hf.methods.losses import OHEM
from pos_hf.reporting.intervals import paired_difference
from pos_hf.runs.config import parse_config
from pos_hf.studies import label_budget, read_study, read_study_scores, run_study, write_tables
from pos_hf.studies.scores import study_cells
from tests.training.killing import fork

ROOT = Path(__file__).parents[2]
CONFIG = {
    "dataset": "shapes",
    "num_labeled": 2,
    "num_unlabeled": 4,
    "num_test": 3,
    "crop_size": 32,
    "selection_share": 0.0,
    "model": "deeplabv3plus_tiny",
    "strategy": "pos",
    "strategy_options": {"min_weight": 0},
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "eval_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
}


@pytest.fixture
def study_file(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(CONFIG))
    study = {
        "title": "A & B",
        "config": "base.yaml",
        "output_dir": str(tmp_path / "runs"),
        "baseline": "uniform",
        "columns": {"1/8 (46)": {}, "short": {"max_steps": 2}},
        "arms": {"uniform": {"strategy": "uniform"}, "POS+MEO": {}},
        "seeds": [{"seed": 0}, {"seed": 1, "split_seed": 5}, {"seed": 2}],
        "published": {"POS+MEO": [77.6, None]},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return file


def change(file: Path, **entries) -> Path:
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | entries, sort_keys=False))
    return file


def score(run, mean_iou: float, areas: np.ndarray | None = None) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.json").write_text(json.dumps({"mean_iou": mean_iou}))
    if areas is not None:
        np.savez(run.folder / "per_image.npz", ids=np.arange(len(areas)), areas=areas)


def test_every_arm_meets_every_column_and_seed_with_its_own_settings(study_file):
    study = read_study(study_file)
    assert {(run.arm, run.column, run.seed) for run in study.runs} == {
        (arm, column, seed)
        for arm in ("uniform", "POS+MEO")
        for column in ("1/8 (46)", "short")
        for seed in (0, 1, 2)
    }
    (run,) = (r for r in study.runs if (r.arm, r.column, r.seed) == ("POS+MEO", "short", 1))
    assert run.folder.relative_to(study.folder).as_posix() == "short/pos_meo/seed_1"
    expected = CONFIG | {"max_steps": 2, "seed": 1, "split_seed": 5, "output_dir": str(run.folder)}
    assert yaml.safe_load(run.config_file.read_text()) == expected


def test_another_strategy_does_not_inherit_the_options_of_the_files(study_file):
    runs = {run.arm: run for run in read_study(study_file).runs}
    assert "strategy_options" not in runs["uniform"].settings
    assert runs["POS+MEO"].settings["strategy_options"] == {"min_weight": 0}


def test_an_arm_of_another_method_keeps_what_labels_are_learned_with(study_file):
    loss = {"name": "ohem", "threshold": 0.7, "min_kept": 100}
    base = CONFIG | {"method_options": {"threshold": 0.9, "supervised_loss": loss}}
    (study_file.parent / "base.yaml").write_text(yaml.safe_dump(base))
    arms = {"uniform": {"strategy": "uniform"}, "supervised": {"method": "supervised"}}
    runs = {run.arm: run for run in read_study(change(study_file, arms=arms, published={})).runs}
    assert runs["uniform"].settings["method_options"] == base["method_options"]
    assert runs["supervised"].settings["method_options"] == {"supervised_loss": loss}
    # the same on the command line
    (study_file.parent / "base.yaml").write_text(yaml.safe_dump(base | {"output_dir": "run"}))
    training = parse_config(study_file.parent / "base.yaml", ["--method", "supervised"])[2]
    assert training.method_options == {"supervised_loss": loss}


@pytest.mark.parametrize(
    ("name", "labels", "one_fewer"),
    [
        ("table1_xception65", [232, 463, 925, 1849, 3697], [463, 925]),
        ("table2_resnet101", [92, 183, 366, 732, 1464], [366]),
        ("table3_resnet101", [186, 372, 744, 1488], []),
    ],
)
def test_supervised_arms_take_the_steps_of_the_published_script(
    name, labels, one_fewer, tmp_path, monkeypatch
):
    """Its loader of twice the batch, an epoch over the labeled images; ours fills no last round up."""
    monkeypatch.chdir(tmp_path)
    study = read_study(ROOT / "configs" / "studies" / f"{name}.yaml")
    runs = [run for run in study.runs if run.arm == "supervised" and run.seed == 0]
    _, data, training = parse_config(runs[0].config_file, [])  # the columns differ in their lists alone
    assert len(runs) == len(labels)
    for count in labels:
        published = DataLoader(
            range(count),
            batch_size=2 * 2,
            drop_last=True,
            sampler=DistributedSampler(range(count), num_replicas=4, rank=0),
        )
        pairs = len(PairSampler(count, 100_000, seed=0, epoch_over=data.epoch_over))
        steps = pairs // (training.per_device_train_batch_size * study.num_processes)
        assert steps == len(published) - (count in one_fewer)
        if count == 92:
            assert steps * training.num_train_epochs == 400
    assert isinstance(training.get_method().labeled_criterion, OHEM) == (name == "table3_resnet101")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"colums": {}}, "unknown key 'colums', did you mean 'columns'"),
        ({"baseline": "unifrom"}, "baseline names 'unifrom'"),
        ({"published": {"other": [1.0, 2.0]}}, "published names 'other'"),
        ({"published": {"uniform": [1.0]}}, "needs 2 numbers, one a column"),
        ({"published": {"uniform": ["x", 1.0]}}, "published: uniform is .* must be a list"),
        ({"published": ["uniform"]}, "published is .* must be a mapping"),
        ({"seeds": [0, 1]}, "seeds is .* must be a list"),
        ({"seeds": [{"split_seed": 0}]}, "seeds such as"),
        ({"arms": ["uniform"]}, "arms is .* must be a mapping"),
        ({"arms": {"uniform": "uniform"}}, "arms: uniform is 'uniform', but must be a mapping"),
        ({"config": 5}, "config is 5, but must be text"),
        ({"num_processes": 0}, "num_processes is 0, but must lie in"),
        ({"arms": {"uniform": {"stratgy": "uniform"}}}, "did you mean 'strategy'"),
        ({"arms": {"uniform": {}, "Uniform!": {}}}, "share the folder"),
        ({"config": "absent.yaml"}, "there is no config file"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused_before_anything_starts(study_file, entries, message):
    with pytest.raises(InputError, match=message):
        read_study(change(study_file, **{"published": {}} | entries))


def test_a_folder_with_a_run_of_other_settings_is_kept(study_file):
    first = read_study(study_file).runs[0]
    score(first, 0.5)
    before = first.config_file.read_text()
    with pytest.raises(InputError, match="begun with other settings"):
        read_study(change(study_file, columns={"1/8 (46)": {"max_steps": 3}}, published={}))
    assert first.config_file.read_text() == before


def test_a_run_folder_of_unknown_settings_is_kept(study_file):
    first = read_study(study_file).runs[0]
    score(first, 0.5)
    first.config_file.unlink()
    with pytest.raises(InputError, match="begun with other settings"):
        read_study(study_file)


def test_a_score_says_of_how_few_seeds_it_is(study_file):
    study = read_study(study_file)
    for run in study.runs:
        if run.seed < 2 and run.arm == "uniform":
            score(run, 0.5)
    assert "| uniform | 50.0 ± 0.0 (n=2) |" in write_tables(study)


def test_the_table_says_how_images_are_predicted(study_file):
    assert "Test images are predicted whole." in write_tables(read_study(study_file))
    window = {"inference_options": {"window": 798, "flip": True}}
    study = read_study(change(study_file, columns={"a": {}, "b": window}, published={}))
    words = "whole (a); through windows of 798 pixels, the last ones inside the image, also mirrored (b)."
    for text in (write_tables(study), (study.folder / "table.html").read_text()):
        assert f"Test images are predicted {words}" in text


def test_a_recorded_run_is_not_run_again_and_a_finished_one_is_recorded(study_file, tmp_path, monkeypatch):
    recorded = tmp_path / "scores.jsonl"
    (first, *others) = read_study(change(study_file, scores="scores.jsonl")).runs
    line = {"arm": first.arm, "column": first.column, "seed": first.seed, "mean_iou": 0.25}
    recorded.write_text(json.dumps(line | {"settings": first.fingerprint}) + "\n")
    started = []

    def train(self, run):
        started.append(run)
        role = "test" if run.seed else "selection"
        score(run, 0.5)
        (run.folder / "metrics.json").write_text(json.dumps({"mean_iou": 0.5, "protocol": {"role": "test"}}))
        (run.folder / "run.json").write_text(json.dumps({"facts": {"evaluated_role": role}}))
        log = [{"step": step, "eval_student_mean_iou": step / 10} for step in (1, 2)]
        (run.folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        return 0

    monkeypatch.setattr("pos_hf.studies.runner.Trainings.run", train)
    study = read_study(study_file)
    assert run_study(study) == []
    assert [(run.arm, run.column, run.seed) for run in started] == [
        (run.arm, run.column, run.seed) for run in others
    ]
    scores, _ = read_study_scores(study)
    assert scores[first.arm, first.column, first.seed].mean_iou == pytest.approx(25)
    lines = [json.loads(line) for line in recorded.read_text().splitlines()]
    students = [0.2 if run.seed else None for run in others]  # none of the selection set beside the test's
    assert [line.get("student_mean_iou") for line in lines] == [None, *students]
    # elsewhere, with the records alone, nothing is left to do; with other settings everything is
    moved = change(study_file, output_dir=str(tmp_path / "elsewhere"))
    assert all(run.is_done for run in read_study(moved).runs)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(CONFIG | {"max_steps": 3}))
    done = [run.column for run in read_study(moved).runs if run.is_done]
    assert set(done) == {"short"}  # which sets max_steps itself
    # two processes take another batch
    assert not any(run.is_done for run in read_study(change(study_file, num_processes=2)).runs)


def test_finished_runs_without_a_record_are_recorded_and_those_without_a_score_are_not(study_file, tmp_path):
    change(study_file, scores="kept/scores.jsonl")
    for run in read_study(study_file).runs:  # as an interruption leaves them before they are recorded
        score(run, 0.5)
        (run.folder / "trainer_state.json").write_text('{"log_history": []}')
    unscored, damaged = read_study(study_file).runs[1:3]
    (unscored.folder / "metrics.json").write_text('{"mean_iou": null}')
    (damaged.folder / "metrics.json").write_text("{")
    for _ in range(2):
        study = read_study(study_file)
        assert run_study(study) == []
        recorded = (tmp_path / "kept" / "scores.jsonl").read_text().splitlines()
        left_out = {unscored.folder, damaged.folder}
        known = [run.fingerprint for run in study.runs if run.folder not in left_out]
        assert [json.loads(line)["settings"] for line in recorded] == known


def test_a_table_names_whose_images_were_scored_and_subtracts_no_others(study_file):
    study = read_study(study_file)
    for run in study.runs:
        score(run, 0.5)
        role = {"mean_iou": 0.5, "protocol": {"role": "selection"}}
        (run.folder / "metrics.json").write_text(json.dumps(role))
    assert "Selection mIoU in percent" in write_tables(study)
    for run in study.runs:
        if run.arm == study.baseline:
            (run.folder / "metrics.json").write_text('{"mean_iou": 0.25, "protocol": {"role": "test"}}')
    assert "Selection and test mIoU in percent" in write_tables(study)
    scores, _ = read_study_scores(study)
    assert {cell.difference for cell in study_cells(study, scores)} == {None}


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"settings": "a", "mean_iou": 2}'])
def test_a_damaged_record_is_named(study_file, tmp_path, line):
    (tmp_path / "scores.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"scores.jsonl is damaged in line 1 .*: remove it"):
        read_study(change(study_file, scores="scores.jsonl"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_run_starts_after_an_interruption(study_file, monkeypatch, jobs):
    started = []
    beside = threading.Barrier(jobs)

    def interrupt(trainings, run):
        started.append(run)
        beside.wait(timeout=60)
        raise KeyboardInterrupt

    monkeypatch.setattr("pos_hf.studies.runner.Trainings.run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_study(read_study(study_file), jobs=jobs)
    assert len(started) == jobs


LAUNCHER = """#!/bin/sh
# passes no signal on to what it has started, like accelerate's of one process
sh -c 'trap "sleep 0.3; touch {0}/stopped; exit 143" TERM; touch {0}/started; while :; do sleep 0.05; done' &
wait
"""


def test_a_study_that_is_stopped_stops_its_trainings_and_a_second_one_is_refused(
    study_file, tmp_path, monkeypatch
):
    launcher = tmp_path / "launcher"
    launcher.write_text(LAUNCHER.format(tmp_path))
    launcher.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(launcher))
    study = read_study(study_file)

    def run() -> None:
        try:
            run_study(study)
        except SystemExit as end:
            os._exit(end.code)

    child = fork(run)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    with pytest.raises(InputError, match=f"runs is in use by process {child}"):
        run_study(study)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    # what the launcher left behind has written its last before the study ends
    assert (tmp_path / "stopped").exists()
    assert os.waitstatus_to_exitcode(status) == 143


def test_the_table_holds_means_spreads_and_paired_differences(study_file):
    study = read_study(study_file)
    values = {"uniform": [0.40, 0.50, 0.60], "POS+MEO": [0.42, 0.53, 0.61]}
    for run in study.runs:
        if run.column == "short":
            score(run, values[run.arm][run.seed])
    markdown = write_tables(study)
    scipys_quantile = 4.302652729911275  # scipy.stats.t.ppf(0.975, 2)
    half = scipys_quantile * statistics.stdev([2, 3, 1]) / 3**0.5
    (line,) = (line for line in markdown.splitlines() if line.startswith("| POS+MEO"))
    assert line == f"| POS+MEO | - |  | 77.6 | 52.0 ± 9.5 | +2.0 [{2 - half:+.1f}, {2 + half:+.1f}] |  |"
    rows = list(csv.DictReader((study.folder / "table.csv").read_text().splitlines()))
    (row,) = (r for r in rows if r["arm"] == "POS+MEO" and r["column"] == "short")
    assert float(row["mean"]) == pytest.approx(52.0)
    assert float(row["low"]) == pytest.approx(2 - half, abs=1e-3)
    assert row["scores"].startswith("0:42")
    assert r"A \& B" in (study.folder / "table.tex").read_text()
    page = (study.folder / "table.html").read_text()
    assert "A &amp; B" in page and "<svg" in page
    assert 'src="http' not in page and 'href="http' not in page


def test_one_seed_alone_has_the_interval_over_images(study_file):
    study = read_study(change(study_file, seeds=[{"seed": 0}], columns={"a": {}}, published={}))
    random = np.random.default_rng(0)
    labeled = random.integers(50, 100, (10, 2))
    areas = [np.stack([hit, labeled, labeled], 1) for hit in random.integers(10, 50, (2, 10, 2))]
    for run, counts in zip(study.runs, areas, strict=True):
        score(run, 0.5, counts)
    cells = {cell.arm: cell for cell in study_cells(study, read_study_scores(study)[0])}
    assert cells["uniform"].difference is None
    expected = paired_difference(areas[1], areas[0])
    assert cells["POS+MEO"].difference == pytest.approx([100 * value for value in expected])


def test_a_damaged_run_is_named_below_the_table_of_the_others(study_file, capsys):
    change(study_file, columns={"a": {}}, published={})
    study = read_study(study_file)
    areas = np.ones((3, 3, 4), int)
    for run in study.runs:
        score(run, 0.5, areas)
    first, second, third = (run for run in study.runs if run.arm == "POS+MEO")
    (first.folder / "metrics.json").write_text('{"mean_iou": ')
    (second.folder / "per_image.npz").write_bytes(b"PK")
    assert main(["study", str(study_file), "--table_only"]) == 1
    table = (study.folder / "table.md").read_text()
    assert "| uniform | 50.0 ± 0.0 |" in table and "| POS+MEO | 50.0 (n=1) |" in table
    for run in (first, second):
        assert f"POS+MEO, a, seed {run.seed} is left out" in table
    assert f"seed {third.seed} is left out" not in table
    assert table.strip() in capsys.readouterr().out


def test_scores_on_other_images_are_not_subtracted(study_file):
    study = read_study(change(study_file, seeds=[{"seed": 0}], columns={"a": {}}, published={}))
    for run, images in zip(study.runs, (3, 4), strict=True):
        score(run, 0.5, np.ones((images, 3, 4), int))
    assert all(cell.difference is None for cell in study_cells(study, read_study_scores(study)[0]))


def test_names_of_arms_and_columns_are_no_formula_no_markup_and_no_cell(study_file):
    names = ["=1+1", "$x_{", "a | b\n<i>", "-2", "\ud800"]
    arms = {name: {"strategy": "uniform"} for name in names}
    study = read_study(
        change(study_file, arms=arms, baseline=names[0], columns={"@c": {}}, published={}, title="<b>\n# t")
    )
    for run in study.runs:
        score(run, 0.5)
    lines = write_tables(study).splitlines()
    assert lines[0] == r"**&lt;b&gt;\\n# t**"
    assert {line.count(" | ") for line in lines if line.startswith("| ") and "---" not in line} == {2}
    assert r"| a \| b\\n&lt;i&gt; |" in "\n".join(lines)
    cells = [
        cell for row in csv.reader((study.folder / "table.csv").read_text().splitlines()) for cell in row
    ]
    assert {"'=1+1", "'-2", "'@c", "$x_{"} <= set(cells)
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]
    assert r"\$x\_\{" in (study.folder / "table.tex").read_text()
    assert "$x_{" in (study.folder / "table.html").read_text()


@pytest.mark.slow
def test_a_study_runs_what_is_missing_and_reports_what_failed(study_file, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    change(study_file, seeds=[{"seed": 0}], columns={"a": {}}, published={})
    study = read_study(study_file)
    done, missing = study.runs
    score(done, 0.5, np.ones((3, 3, 4), int))
    assert run_study(study) == []
    assert json.loads((missing.folder / "metrics.json").read_text())["mean_iou"] > 0
    assert sorted(path.name for path in done.folder.iterdir()) == ["metrics.json", "per_image.npz"]

    missing.config_file.write_text("strategy: unknown")
    (missing.folder / "metrics.json").unlink()
    assert run_study(study) == [missing]
    assert "unknown strategy" in missing.log_file.read_text()


def test_the_docs_and_the_study_of_table_5_have_the_same_weights():
    arms = yaml.safe_load((ROOT / "configs" / "studies" / "table5.yaml").read_text())["arms"].values()
    fixed = [arm["strategy_options"] for arm in arms if arm["strategy"] == "fixed"]
    page = (ROOT / "docs" / "paper.md").read_text()
    (written,) = re.findall(r"--strategy fixed --strategy_options '(.*)'", page)
    assert json.loads(written) in fixed
    assert all(sum(weights.values()) == pytest.approx(1) for weights in fixed)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "studies").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_shipped_studies_can_be_read(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(file), "--table_only"]) == 0
    table = capsys.readouterr().out
    assert "uniform" in table
    assert ("predicted through windows of" in table) == ("table3" in file.stem)


def test_a_label_budget_compares_a_config_with_supervised_training_over_labels(tmp_path, capsys):
    config = tmp_path / "base.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"output_dir": str(tmp_path / "mine")}))
    study = label_budget(config, [4, 2], num_seeds=2)
    assert study.columns == ["2 labels", "4 labels"] and study.arms == ["supervised", "unimatch_v2, pos"]
    assert {
        (run.arm, run.settings["num_labeled"], run.settings["seed"], run.settings["split_seed"])
        for run in study.runs
    } == {(arm, labels, seed, seed) for arm in study.arms for labels in (2, 4) for seed in (0, 1)}
    assert {run.settings.get("method", "unimatch_v2") for run in study.runs if run.arm != "supervised"} == {
        "unimatch_v2"
    }
    for run in study.runs:
        score(run, run.settings["num_labeled"] / 10 + (run.arm != "supervised") / 10 + run.seed / 100)
    assert main(["study", "--label_budget", "4,2", "--seeds", "2", "--table_only", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "| supervised | 20.5 ± 0.7 |  | 40.5 ± 0.7 |" in printed and "+10.0 [+10.0, +10.0]" in printed
    picture = (tmp_path / "mine_label_budget" / "table.svg").read_text()
    assert "labeled images" in picture and "unimatch_v2, pos" in picture


@pytest.mark.parametrize(
    ("changes", "numbers", "words"),
    [
        ({"method": "supervised", "strategy_options": None}, [2], "trains without unlabeled images"),
        ({}, [2, 2], "different numbers"),
        ({}, [0], "different numbers"),
    ],
)
def test_a_label_budget_that_says_nothing_is_refused(tmp_path, changes, numbers, words):
    config = tmp_path / "base.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"output_dir": str(tmp_path / "mine")} | changes))
    with pytest.raises(InputError, match=words):
        label_budget(config, numbers, num_seeds=1)
