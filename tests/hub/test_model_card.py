"""The card of a run: valid metadata, the run's own numbers, and lines of use that run."""

import re

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from pos_hf.hub import citations, write_model_card
from tests.reporting.fake_run import NAMES


def test_the_metadata_says_task_and_results(make_run) -> None:
    card = ModelCard.load(write_model_card(make_run("run"), repository="me/shapes-pos", license="apache-2.0"))
    assert card.data.pipeline_tag == "image-segmentation" and card.data.license == "apache-2.0"
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["mean_iou"].dataset_split == "test"
    assert f"{100 * results['mean_iou'].metric_value:.1f}" in card.text
    assert card.data.model_name == "shapes-pos"


def test_the_text_holds_label_counts_every_class_and_the_papers(make_run) -> None:
    text = write_model_card(make_run("run")).read_text()
    assert "12 labeled" in text and "300 unlabeled" in text and "0123456789ab" in text
    rows = re.findall(r"^\| (\w+) \| [\d.]+ \| [\d.]+ to [\d.]+ \|$", text, re.MULTILINE)
    assert rows == NAMES
    assert citations.STRATEGIES["pos"] in text and citations.METHODS["fixmatch"] in text
    assert "negative\nin" in text and "![Prediction" in text


def test_a_run_without_unlabeled_images_claims_nothing_about_them(make_run) -> None:
    text = write_model_card(make_run("run", unlabeled=False)).read_text()
    assert "Gradients:" not in text and "Citation" not in text and "Pseudo-labels" not in text
    assert "without any unlabeled" in text


def test_nothing_private_reaches_the_card(make_run) -> None:
    text = write_model_card(make_run("run")).read_text()
    assert "hf_secret" not in text and "/somewhere/private" not in text


def test_the_lines_of_use_run_as_printed(make_run, monkeypatch) -> None:
    folder = make_run("run")
    text = write_model_card(folder).read_text()
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=1,
        depths=[1],
        sr_ratios=[1],
        hidden_sizes=[8],
        patch_sizes=[3],
        strides=[2],
        num_attention_heads=[1],
        mlp_ratios=[1],
        decoder_hidden_size=8,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(do_resize=False).save_pretrained(folder)
    monkeypatch.chdir(folder.parent)
    Image.new("RGB", (30, 20)).save("photo.jpg")
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) <= 5
    variables: dict = {}
    exec(lines, variables)
    assert variables["mask"].shape == (20, 30)


@pytest.mark.parametrize("kind", ["METHODS", "STRATEGIES"])
def test_everything_cited_exists(kind: str) -> None:
    from pos_hf.balancing import STRATEGIES, STRATEGY_FAMILIES
    from pos_hf.methods import METHODS

    known = METHODS if kind == "METHODS" else STRATEGIES | STRATEGY_FAMILIES
    assert set(getattr(citations, kind)) <= set(known)
