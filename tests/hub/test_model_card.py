"""The card of a run: valid metadata, the run's own numbers, and lines of use that run."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from pos_hf.data import DataArguments
from pos_hf.errors import InputError
from pos_hf.hub import citations, evaluation_results, model_card, run_facts, write_model_card
from pos_hf.run_folder import read_runs
from pos_hf.runs.config import ModelArguments
from pos_hf.runs.train import training_facts
from tests.hub.server import metadata_errors
from tests.launching import ROOT
from tests.reporting.fake_run import NAMES


def test_the_metadata_says_task_origin_and_results(make_run) -> None:
    (run,) = read_runs([make_run("run", hub_dataset="someone/shapes", base_model="someone/backbone")])
    card = ModelCard(model_card(run, run_facts(run), "me/shapes-pos", "apache-2.0"))
    assert card.data.pipeline_tag == "image-segmentation" and card.data.license == "apache-2.0"
    assert card.data.base_model == "someone/backbone" and card.data.datasets == ["someone/shapes"]
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["mean_iou"].dataset_split == "test"
    assert f"{100 * results['mean_iou'].metric_value:.1f}" in card.text
    assert card.data.model_name == "shapes-pos"


def test_the_newer_result_file_names_the_hubs_dataset(make_run) -> None:
    (run,) = read_runs([make_run("run", hub_dataset="someone/shapes")])
    (entry,) = parse_eval_result_entries(yaml.safe_load(evaluation_results(run, run_facts(run))))
    assert entry.dataset_id == "someone/shapes"
    assert entry.value == round(100 * run.metrics["mean_iou"], 2)
    (local,) = read_runs([make_run("local")])
    assert evaluation_results(local, run_facts(local)) is None


def test_the_text_holds_label_counts_every_class_and_the_papers(make_run) -> None:
    text = write_model_card(make_run("run")).read_text()
    assert "12 labeled" in text and "300 unlabeled" in text and "0123456789ab" in text
    rows = re.findall(r"^\| (\w+) \| [\d.]+ \| [\d.]+ to [\d.]+ \|$", text, re.MULTILINE)
    assert rows == NAMES
    for paper in (
        citations.STRATEGIES["pos"],
        citations.METHODS["fixmatch"],
        citations.NETWORKS["segformer"],
    ):
        assert paper in text
    assert "negative\nin" in text and "![Prediction" in text


def test_score_and_pictures_come_first_and_hyperparameters_are_folded(make_run) -> None:
    folder = make_run("run")
    settings = json.loads((folder / "run.json").read_text())
    settings["training"]["learning_rate"] = 3e-3
    (folder / "run.json").write_text(json.dumps(settings))
    text = ModelCard(write_model_card(folder).read_text()).text
    score = f"**{100 * json.loads((folder / 'metrics.json').read_text())['mean_iou']:.1f} % mIoU**"
    shown = re.findall(r"!\[\w+\]\(([^)]+)\)", text)
    assert [Path(picture).name for picture in shown] == ["image.jpg", "truth.png", "overlay.png"]
    assert all((folder / picture).is_file() for picture in shown)
    assert text.index(score) < text.index("![Image]") < text.index("A semantic") < text.index("## Use")
    folded = text.partition("<details>")[2].partition("</details>")[0]
    assert "| learning_rate |" in folded and text.count("learning_rate") == 1


def test_a_run_without_unlabeled_images_claims_nothing_about_them(make_run) -> None:
    text = write_model_card(make_run("run", unlabeled=False)).read_text()
    assert "semi-supervised" not in text and "| strategy |" not in text
    assert "Gradients:" not in text and "Pseudo-labels" not in text
    assert "without any unlabeled" in text


def test_a_run_without_scores_says_so_and_shows_none(make_run) -> None:
    folder = make_run("run")
    (folder / "metrics.json").unlink()
    card = ModelCard(write_model_card(folder).read_text())
    assert card.data.eval_results is None
    assert "Not scored after step 300" in card.text
    assert "mIoU" not in card.text and "![" not in card.text


def test_nothing_private_reaches_the_card(make_run) -> None:
    text = write_model_card(make_run("run")).read_text()
    assert "hf_secret" not in text and "/somewhere/private" not in text


def test_names_from_the_data_are_no_markup(make_run) -> None:
    folder = make_run(
        "run", dataset="<img src=x>", base_model="a](b) | c", strategy="x\n# y", split_hash="`|`"
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ["<script>", "a | b", "c\n| d | 1.0 |", "[e](http://f)", "caf\udce9"]
    metrics["per_category_iou"] = dict(zip(names, metrics["per_category_iou"].values(), strict=True))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (run,) = read_runs([folder])
    text = model_card(run, run_facts(run), 'me/x"); import os #')
    body = ModelCard(text).text
    body.encode()
    assert "<img" not in body and "<script" not in body and "\n# y" not in body
    assert not re.search(r"(?<!\\)\]\(http://f", body)
    table = body[body.index("| class | IoU") :].split("\n\n")[0].splitlines()
    assert len(table) == 2 + len(names)
    assert {re.sub(r"\\\|", "", line).count("|") for line in table} == {4}
    (lines,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Call)]
    loads = [ast.literal_eval(call.args[0]) for call in calls if "from_pretrained" in ast.unparse(call.func)]
    assert loads == ['me/x"); import os #'] * 2


def test_settings_are_shown_by_name_and_no_others(make_run) -> None:
    folder = make_run("run")
    settings = json.loads((folder / "run.json").read_text())
    settings["training"] |= {"learning_rate": 0.003, "logging_dir": "/elsewhere"}
    settings["training"]["method_options"] = {"threshold": 0.9}
    (folder / "run.json").write_text(json.dumps(settings))
    text = write_model_card(folder).read_text()
    assert "| learning_rate | `0.003` |" in text and "| method_options.threshold | `0.9` |" in text
    assert "elsewhere" not in text and "max_steps" not in text


def test_the_facts_of_a_training_name_sources_on_the_hub_and_no_folder(tmp_path) -> None:
    trainer = SimpleNamespace(facts={}, method=SimpleNamespace(needs_held_out=False))
    data = SimpleNamespace(name="images", split_hash=lambda: "0123", selection=None, test=None)
    for weights, dataset, expected in (
        ({"backbone_weights": "someone/backbone"}, "someone/images", ("someone/backbone", "someone/images")),
        ({"model": "someone/model"}, "someone/images", ("someone/model", "someone/images")),
        ({"model": str(tmp_path)}, str(tmp_path), (None, None)),
        ({}, str(tmp_path), (None, None)),
    ):
        data_args = DataArguments(dataset=dataset, dataset_format="huggingface")
        facts = training_facts(trainer, ModelArguments(**weights), data_args, data)
        assert (facts["base_model"], facts["hub_dataset"]) == expected
        assert str(tmp_path) not in json.dumps(facts)


def test_a_folder_that_does_not_say_how_it_was_trained_is_refused(make_run) -> None:
    folder = make_run("run")
    (folder / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json"):
        write_model_card(folder)


def test_the_lines_of_use_run_as_printed(make_run, monkeypatch) -> None:
    folder = make_run("run")
    text = write_model_card(folder).read_text()
    monkeypatch.chdir(folder.parent)
    Image.new("RGB", (30, 20)).save("photo.jpg")
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 5
    variables: dict = {}
    exec(lines, variables)
    assert variables["logits"].shape[:2] == (1, len(NAMES))


def test_the_lines_of_use_fit_images_of_five_channels(make_run, monkeypatch) -> None:
    folder = make_run("run")
    config = SegformerConfig.from_pretrained(folder, num_channels=5)
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(do_resize=False, image_mean=[0.5] * 5, image_std=[0.25] * 5).save_pretrained(
        folder
    )
    (lines,) = re.findall(r"```python\n(.*?)```", write_model_card(folder).read_text(), re.DOTALL)
    monkeypatch.chdir(folder.parent)
    np.save("image.npy", np.zeros((20, 30, 5), np.uint8))
    variables: dict = {}
    exec(lines, variables)
    assert variables["logits"].shape[:2] == (1, len(NAMES))


def test_every_network_cited_is_known_to_transformers() -> None:
    import pos_hf.models  # noqa: F401 - registers ours

    assert set(citations.NETWORKS) <= set(CONFIG_MAPPING_NAMES)


@pytest.mark.parametrize("kind", ["METHODS", "STRATEGIES"])
def test_everything_cited_exists(kind: str) -> None:
    from pos_hf.balancing import STRATEGIES
    from pos_hf.methods import METHODS

    known = METHODS if kind == "METHODS" else STRATEGIES
    assert set(getattr(citations, kind)) <= set(known)


SHOWN = [pytest.param(path, id=path.parent.name) for path in (ROOT / "model_cards").glob("*/README.md")]


@pytest.mark.parametrize("path", SHOWN)
def test_a_card_that_the_repository_shows_is_one_the_hub_takes(path: Path) -> None:
    text = path.read_text()
    assert metadata_errors(text) == []
    assert ModelCard(text).data.eval_results
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (path.parent / target).exists(), target


def test_the_metadata_check_of_these_tests_can_fail() -> None:
    assert metadata_errors("no metadata")
    assert metadata_errors("---\nlicense: nonsense\n---\n")
    assert metadata_errors("---\ntags:\n- 3\n---\n")
    lacking = {"model-index": [{"results": [{"task": {}, "dataset": {}, "metrics": [{}]}]}]}
    assert len(metadata_errors(f"---\n{yaml.safe_dump(lacking)}---\n")) == 2
