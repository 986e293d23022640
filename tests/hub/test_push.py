"""Pushing against a server that speaks the Hub's API: what it gets, who can load it, and what faults do."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file

from pos_hf.cli.main import main
from tests.hub.server import Fault, Hub
from tests.hub.session import SECRET_FOLDER, TOKEN_IN_YAML
from tests.launching import ROOT

TOKEN = "hf_plantedInTheEnvironment9876543210"
CODE = {
    "backbones.py",
    "configuration_aligned_xception.py",
    "configuration_deep_stem_resnet.py",
    "configuration_deeplabv3plus.py",
    "modeling_aligned_xception.py",
    "modeling_deep_stem_resnet.py",
    "modeling_deeplabv3plus.py",
    "segmentation.py",
}
MODEL = {"config.json", "model.safetensors", "preprocessor_config.json"}
SERVER_FAULTS = {
    "refused-401": Fault("preupload", 401),
    "forbidden-403": Fault("preupload", 403),
    "conflict-409": Fault("commit", 409),
    "too-large-413": Fault("PUT .*lfs", 413),
    "create-500": Fault("POST /api/repos/create", 500, times=2),
    "batch-500": Fault("objects/batch", 500, times=2),
    "commit-500": Fault("commit", 500, times=2),
    "commit-500-for-good": Fault("commit", 500, times=99),
    "cut-for-good": Fault("commit", None, times=99),
    "cut-upload": Fault("PUT .*lfs", None),
    "cut-commit": Fault("commit", None),
}
REFUSALS = {
    "refused-401": "hf auth login",
    "forbidden-403": "write access",
    "conflict-409": "push again",
    "too-large-413": "larger",
    "commit-500-for-good": "later",
    "cut-for-good": "cannot be reached",
}

LOAD_WITHOUT_THE_PACKAGE = """
import copy, sys
sys.modules["pos_hf"] = None  # any import of the package now fails
import torch
from transformers import AutoModelForSemanticSegmentation

torch.set_num_threads(1)
images = torch.linspace(-1, 1, 2 * 3 * 64 * 48).reshape(2, 3, 64, 48)
loaded = AutoModelForSemanticSegmentation.from_pretrained("me/shapes", trust_remote_code=True)
student = AutoModelForSemanticSegmentation.from_pretrained(
    "me/shapes", subfolder="student", trust_remote_code=True
)
with torch.no_grad():
    torch.save(copy.deepcopy(loaded)(images).logits, "without/logits.pt")
torch.save(student.state_dict(), "without/student.pt")
names = {}
exec(open("without/snippet.py").read(), names)
torch.save(names["logits"], "without/snippet.pt")
"""


@dataclass
class Pushed:
    """What the session left behind: a folder, its results, and the server."""

    folder: Path
    results: dict[str, Any]
    hub: Hub


def run_python(hub: Hub, folder: Path, home: str, *arguments: str) -> None:
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # its native client speaks another protocol
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("hub")
    with Hub(TOKEN, TOKEN_IN_YAML) as hub:
        hub.faults = {f"me/{name}": [fault] for name, fault in SERVER_FAULTS.items()}
        run_python(hub, folder, "home", "-m", "tests.hub.session", str(folder), *SERVER_FAULTS)
        yield Pushed(folder, json.loads((folder / "results.json").read_text()), hub)


def test_exactly_the_allowed_files_are_uploaded(pushed):
    files = set(pushed.hub.repositories["me/shapes"].files)
    pictures = {name for name in files if name.startswith("examples/")}
    assert {Path(picture).name for picture in pictures} == {"image.jpg", "truth.png", "overlay.png"}
    student = {f"student/{name}" for name in MODEL | CODE}
    assert files == MODEL | CODE | student | {"README.md", "metrics.json"} | pictures
    card = pushed.hub.repositories["me/shapes"].files["README.md"]
    assert all(picture.encode() in card for picture in pictures)


def test_a_dry_run_shows_each_file_and_sends_nothing(pushed):
    dry = pushed.results["dry"]
    assert dry["code"] == 0 and "--yes" in dry["out"]
    assert not pushed.results["exists_after_dry_run"]
    files = pushed.hub.repositories["me/shapes"].files
    listed = dict(re.findall(r"^(\S+) +([\d.]+ k?M?B)$", dry["out"], re.MULTILINE))
    assert set(listed) == set(files)
    assert listed["model.safetensors"] == f"{len(files['model.safetensors']) / 1e6:.1f} MB"


def test_a_space_gets_the_page_and_the_package_that_it_runs_with(pushed):
    files = pushed.hub.repositories["me/page"].files
    package = ROOT / "pos_hf"
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    source = {path for path in found if path.name != "py.typed"}
    expected = {f"pos_hf/{path.relative_to(package)}" for path in source}
    assert files.keys() == expected | {"README.md", "app.py", "requirements.txt", "space.json"}
    assert files["app.py"] == (package / "hub" / "app.py").read_bytes()
    assert json.loads(files["space.json"]) == {"model": "me/shapes", "trust_remote_code": False}
    header = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (header["sdk"], header["app_file"], header["models"]) == ("gradio", "app.py", ["me/shapes"])
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert files["requirements.txt"].decode().splitlines() == needed
    create = [json.loads(body) for line, body in pushed.hub.requests if "repos/create" in line]
    assert {c["type"]: c["sdk"] for c in create if c.get("type") == "space"} == {"space": "gradio"}
    assert "nothing was uploaded" in pushed.results["dry_space"]["out"]
    assert "pos_hf/hub/app.py" in pushed.results["dry_space"]["out"]


def test_no_token_and_no_path_is_in_any_uploaded_byte(pushed):
    bodies = [body for line, body in pushed.hub.requests]
    pages = pushed.hub.repositories["me/page"].files.values()
    stored = [file for held in pushed.hub.repositories.values() for file in held.files.values()]
    for secret in (TOKEN, TOKEN_IN_YAML, SECRET_FOLDER, str(pushed.folder)):
        assert not any(secret.encode() in content for content in pages), secret
    stored = [file for file in stored if file not in pages]  # the source speaks of training_args
    for secret in (TOKEN, TOKEN_IN_YAML, SECRET_FOLDER, str(pushed.folder), "training_args"):
        assert not any(secret.encode() in content for content in (*bodies, *stored)), secret
    assert any(b"resnet" in content for content in stored)


@pytest.fixture(scope="module")
def without_the_package(pushed) -> Path:
    folder = pushed.folder / "without"
    folder.mkdir()
    card = pushed.hub.repositories["me/shapes"].files["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) == 5
    (folder / "snippet.py").write_text(snippet)
    (picture,) = (pushed.folder / "predicted" / "overlays").iterdir()
    (pushed.folder / "photo.jpg").write_bytes(picture.read_bytes())
    run_python(pushed.hub, pushed.folder, "fresh_home", "-c", LOAD_WITHOUT_THE_PACKAGE)
    return folder


def test_logits_are_equal_where_the_package_is_not_installed(pushed, without_the_package):
    here, there = torch.load(pushed.folder / "logits.pt"), torch.load(without_the_package / "logits.pt")
    assert torch.equal(here, there)
    assert here.shape == (2, 5, 64, 48)


def test_the_root_is_the_teacher_and_the_subfolder_the_student(pushed, without_the_package):
    checkpoint = pushed.folder / SECRET_FOLDER / "run" / "checkpoint-3"
    student, teacher = (load_file(checkpoint / part / "model.safetensors") for part in (".", "teacher"))
    loaded = torch.load(without_the_package / "student.pt")
    assert all(torch.equal(value, loaded[name]) for name, value in student.items())
    assert not all(torch.equal(value, teacher[name]) for name, value in student.items())


def test_the_cards_lines_run_where_the_package_is_not_installed(without_the_package):
    assert torch.load(without_the_package / "snippet.pt").shape[:2] == (1, 5)


def test_the_cards_metadata_is_what_was_measured(pushed):
    card = ModelCard(pushed.hub.repositories["me/shapes"].files["README.md"].decode())
    metrics = json.loads(pushed.hub.repositories["me/shapes"].files["metrics.json"])
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["mean_iou"].metric_value == metrics["mean_iou"]
    assert (card.data.license, card.data.model_name) == ("apache-2.0", "shapes")
    # by the client before each commit, and by ModelCard.validate
    assert "POST /api/validate-yaml" in [line for line, _ in pushed.hub.requests]


def test_scores_on_a_dataset_of_the_hub_are_also_in_the_newer_file(pushed):
    files = pushed.hub.repositories["me/benchmark"].files
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/pos_hf.yaml"]))
    score = json.loads(files["metrics.json"])["mean_iou"]
    assert (entry.dataset_id, entry.value) == ("someone/shapes", round(100 * score, 2))
    assert files.keys() - pushed.hub.repositories["me/shapes"].files.keys() == {".eval_results/pos_hf.yaml"}


def test_pushing_the_same_run_again_changes_nothing(pushed):
    assert pushed.results["again"]["code"] == 0
    assert len(pushed.hub.repositories["me/shapes"].commits) == 1


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_sentence_that_says_what_to_do(pushed, name):
    result = pushed.results["faults"][name]
    assert result["code"] == 2
    (sentence,) = [line for line in result["err"].splitlines() if line.startswith("pos-hf push:")]
    assert REFUSALS[name] in sentence
    assert "Traceback" not in result["err"]
    assert not pushed.hub.repositories[f"me/{name}"].commits


@pytest.mark.parametrize("name", sorted(SERVER_FAULTS.keys() - REFUSALS.keys()))
def test_a_fault_that_passes_is_survived(pushed, name):
    assert SERVER_FAULTS[name].times == 0
    assert pushed.results["faults"][name]["code"] == 0, pushed.results["faults"][name]["err"]
    whole = pushed.hub.repositories["me/shapes"].files
    held = pushed.hub.repositories[f"me/{name}"].files
    assert held.keys() == whole.keys()
    assert held["model.safetensors"] == whole["model.safetensors"]


def test_pushes_leave_the_run_as_it_was(pushed):
    assert pushed.results["run_untouched"]


def test_training_pushes_the_finished_run_and_nothing_before(pushed):
    live = pushed.hub.repositories["me/live"]
    assert live.commits == ["End of training"]
    assert set(live.files) == set(pushed.hub.repositories["me/shapes"].files)


def test_a_trainer_in_python_pushes_when_it_is_told_to(pushed):
    repository = pushed.hub.repositories["me/python"]
    assert repository.commits == ["End of training"]
    assert pushed.results["python"]["files_during_training"] == 0
    assert set(repository.files) == MODEL | {f"student/{file}" for file in MODEL} | {"README.md"}
    assert ModelCard(repository.files["README.md"].decode()).data.license == "mit"
    assert (pushed.folder / "python" / "README.md").read_bytes() == repository.files["README.md"]


def test_evaluate_and_predict_take_a_repository(pushed):
    for name in ("evaluate", "predict", "predict_with_the_student"):
        assert pushed.results[name]["code"] == 0, pushed.results[name]["err"]
    assert (pushed.folder / "evaluated" / "metrics.json").exists()


def test_fine_tuning_with_other_classes_draws_the_classifier_anew_and_says_so(pushed):
    result = pushed.results["fine_tune"]
    assert result["labels"] == 2
    assert result["fresh"] == ["classifier.weight", "classifier.bias"]
    (line,) = result["log"].splitlines()
    assert "these 2" in line and "classifier.bias and classifier.weight" in line


def test_nothing_is_sent_while_the_hub_is_switched_off(make_run, capsys):
    assert main(["push", str(make_run("run")), "--repo", "me/run", "--yes"]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err


def test_a_license_that_the_hub_does_not_know_is_named(pushed):
    result = pushed.results["license"]
    assert result["code"] == 2 and "'nonsense'" in result["err"]
    assert not pushed.hub.repositories["me/license"].commits


@pytest.mark.parametrize("name", ["run", "me/a/b", "me/-run", "me/a run"])
def test_a_name_that_is_no_repository_is_refused(make_run, capsys, name):
    assert main(["push", str(make_run("run")), "--repo", name]) == 2
    assert "user/name" in capsys.readouterr().err
