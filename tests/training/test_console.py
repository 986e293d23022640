"""What a run prints: in plain lines, as JSON, and on a real terminal."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pos_hf.cli.main import main
from pos_hf.training.console import COLUMNS, RunConsole, duration
from tests.cli.conftest import folder, template  # noqa: F401
from tests.launching import ROOT

ARGS = SimpleNamespace(disable_tqdm=False, device=SimpleNamespace(type="cpu"))


def state(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=140, is_world_process_zero=True)


def window(number: int, weight: float) -> dict[str, float]:
    return {
        "loss": 1.0,
        "supervised_loss": number,
        "unsupervised_loss": 2 * number,
        "kept_share": number / 10,
        "learning_rate": 0.01,
        "supervised_weight": weight,
        "unsupervised_weight": 1 - weight,
        "eval_iou_never_shown": 0.5,
    }


def test_a_row_on_a_terminal_stands_for_all_windows_since_the_row_before(capsys) -> None:
    console = RunConsole()
    console.on_terminal = True
    console.on_train_begin(ARGS, state(0), None)
    for step, number, weight in ((5, 1, 0.4), (10, 3, 0.25)):
        console.on_log(ARGS, state(step), None, logs=window(number, weight))
        console.on_step_begin(ARGS, state(step), None)
    console.on_log(ARGS, state(12), None, logs={"eval_mean_iou": 0.4321})
    console.on_train_end(ARGS, state(12), None)
    header, first, second = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header[0] == "step" and "mIoU" in header
    assert first == ["10", "2.0000", "4.0000", "20.0", "1.00e-02", "0.25-0.40", "0.60-0.75"]
    assert second == ["12", "43.2"]


def test_a_supervised_row_leaves_the_unlabeled_columns_empty(capsys) -> None:
    console = RunConsole("plain")
    console.on_train_begin(ARGS, state(0), None)
    console.on_log(ARGS, state(1), None, logs={"loss": 1, "supervised_loss": 0.5, "learning_rate": 0.1})
    console.on_step_begin(ARGS, state(1), None)
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["1", "0.5000", "1.00e-01"]


def test_every_column_fits_eighty_characters() -> None:
    assert sum(width + 1 for _, width in COLUMNS) - 1 < 80


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (61, "1 min 1 s"), (7261, "2 h 1 min"), (180000, "2 d 2 h")]
)
def test_durations_are_in_two_units(seconds, words) -> None:
    assert duration(seconds) == words


def scored(folder: Path) -> list[str]:  # noqa: F811
    for role in ("images", "masks"):
        shutil.copytree(folder / "data" / role, folder / "data" / "test" / role)
    rows = ["--max_steps", "4", "--logging_steps", "1", "--eval_strategy", "steps", "--eval_steps", "2"]
    return ["train", str(folder / "config.yaml"), *rows]


def test_a_run_in_a_file_prints_a_row_a_log_and_ends_with_the_score(folder, capsys) -> None:  # noqa: F811
    assert main(scored(folder)) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.split()[:1] == ["step"])
    steps = [line.split()[0] for line in lines[begin + 1 :] if line[:7].strip().isdigit()]
    assert steps == ["1", "2", "3", "4"]
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    (score,) = [line for line in lines if line.startswith("test mIoU")]
    assert f"{100 * metrics['mean_iou']:.1f} %" in score and "95 % interval" in score
    assert any(line.startswith("student") for line in lines)
    assert any(line.startswith("report") and line.endswith("report.html") for line in lines)
    assert f"pos-hf predict {folder / 'run'}" in output.out
    assert "█" not in output.out + output.err and "{'loss'" not in output.out
    assert "2 labeled, 2 unlabeled, 2 test" in lines[0]


def test_json_lines_hold_every_number_of_the_log(folder, capsys) -> None:  # noqa: F811
    assert main([*scored(folder), "--console", "json"]) == 0
    start, *logs, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (start["event"], end["event"]) == ("start", "end")
    history = json.loads((folder / "run" / "trainer_state.json").read_text())["log_history"]
    assert [set(log) for log in logs] == [set(entry) for entry in history]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_a_run_fits_a_terminal_and_its_last_screen_says_what_to_type(folder, width, height) -> None:  # noqa: F811
    name = f"pos-hf-test-{folder.name}"
    command = [sys.executable, "-m", "pos_hf", *scored(folder)[:2], "--max_steps", "60"]
    command += ["--output_dir", "run"]  # the path of the test's folder would wrap
    command += ["--logging_steps", "1", "--eval_strategy", "steps", "--eval_steps", "30"]
    tmux = ["tmux", "-L", name]
    shell = f"cd {folder}; PYTHONPATH={ROOT} {' '.join(command)}; sleep 600"
    subprocess.run([*tmux, "new-session", "-d", "-x", str(width), "-y", str(height), shell], check=True)
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            time.sleep(0.5)
            shown = subprocess.run([*tmux, "capture-pane", "-p", "-S", "-99"], capture_output=True, text=True)
            if "pos-hf push" in shown.stdout:
                break
        screen = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    assert "test mIoU" in screen and "report.html" in screen and "pos-hf push" in screen
    rows = [line for line in shown.stdout.splitlines() if line[:7].strip().isdigit()]
    assert 10 <= len(rows) <= 20 < height
    assert max(map(len, screen.splitlines())) <= width
    assert "█" not in shown.stdout
