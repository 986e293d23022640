"""What users of transformers' Trainer pass is honoured, or refused in one sentence at the start."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    MobileViTConfig,
    MobileViTForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.data import PairedDataset, collate
from pos_hf.errors import InputError
from pos_hf.evaluation import evaluate_images
from pos_hf.training import POSConfig

from .resuming import DATA, shapes
from .tiny import TinySegmenter, tiny_model, tiny_rows, tiny_trainer


class Plain(nn.Module):
    def forward(self, pixel_values):
        return SemanticSegmenterOutput(logits=pixel_values)


class WithAdapter(TinySegmenter):
    _hf_peft_config_loaded = True


class Wrapped(Plain):
    peft_config = {"default": "LoraConfig"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compute_metrics": len}, "compute_metrics .*evaluate_images"),
        ({"compute_loss_func": len}, "compute_loss_func .* pass a `method`"),
        ({"preprocess_logits_for_metrics": len}, "preprocess_logits_for_metrics .*on_evaluate"),
        ({"model_init": tiny_model}, "model_init .* pass the model itself"),
        ({"processing_class": None}, "processing_class is missing: .*default_image_processor"),
        ({"model": Plain()}, "the model is a Plain, .* PreTrainedModel"),
        ({"model": WithAdapter(tiny_model().config)}, "a model after add_adapter, .*add_lora"),
        ({"model": Wrapped()}, "a PeftModel, .*pos_hf.models.adapters.add_lora"),
        (
            {"eval_dataset": {"a": 1}, "save_strategy": "best", "eval_strategy": "epoch"},
            "pass one as eval_dataset",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),  # the same in every process
)
def test_what_has_no_meaning_is_refused_in_one_sentence(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message) as refusal:
        tiny_trainer(str(tmp_path / "run"), **arguments)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def mobilevit():
    config = MobileViTConfig(
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
        num_attention_heads=1,
        aspp_out_channels=8,
        num_labels=3,
    )
    return MobileViTForSemanticSegmentation(config)


def segformer():
    config = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=3
    )
    return SegformerForSemanticSegmentation(config)


def counted(model):
    """How often every BatchNorm counts the images of one step."""
    model.train()(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return {int(norm.num_batches_tracked) for norm in norms}


def test_blocks_whose_batch_norms_would_count_twice_are_not_run_twice(tmp_path):
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    trainer = tiny_trainer(str(tmp_path / "run"), model=segformer(), **settings)
    trainer.model.gradient_checkpointing_enable()
    assert counted(trainer.model) == {1}
    unsafe = mobilevit()
    with pytest.raises(InputError, match="BatchNorm in it") as refusal:
        tiny_trainer(str(tmp_path / "run"), model=unsafe, **settings)
    assert "\n" not in str(refusal.value)
    unsafe.gradient_checkpointing_enable(settings["gradient_checkpointing_kwargs"])
    assert counted(unsafe) == {1, 2}  # which is why


@pytest.mark.parametrize(
    ("arguments", "metric"),
    [
        ({"load_best_model_at_end": True, "save_strategy": "epoch"}, "mean_iou"),
        ({"save_strategy": "best"}, "mean_iou"),
        ({"save_strategy": "best", "metric_for_best_model": "overall_accuracy"}, "overall_accuracy"),
        ({}, None),
    ],
)
def test_the_best_model_is_by_default_that_of_the_best_mean_iou(tmp_path, arguments, metric):
    args = POSConfig(output_dir=str(tmp_path), use_cpu=True, eval_strategy="epoch", **arguments)
    assert args.metric_for_best_model == metric
    assert args.greater_is_better is (None if metric is None else True)


def test_the_best_without_scores_is_refused_and_eval_steps_without_them_said(tmp_path, caplog):
    with pytest.raises(InputError, match="save_strategy 'best' needs scores"):
        POSConfig(output_dir=str(tmp_path), use_cpu=True, save_strategy="best")
    for strategy, said in (("no", True), ("epoch", True), ("steps", False)):
        caplog.clear()
        POSConfig(output_dir=str(tmp_path), use_cpu=True, eval_strategy=strategy, eval_steps=5)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * said


def test_a_strategy_that_is_passed_is_the_one_that_is_claimed(tmp_path):
    def mine(gramian):
        return torch.tensor(0.5).double(), torch.tensor(0.5).double()

    trainer = tiny_trainer(str(tmp_path), method="fixmatch", strategy=mine)
    assert trainer.facts["strategy"] == trainer.identity["strategy"] == "mine"
    assert tiny_trainer(str(tmp_path), method="fixmatch").facts["strategy"] == "pos"


def test_an_optimizer_and_a_collator_of_the_users_are_used(tmp_path):
    batches = []

    def collator(items):
        batches.append(len(items))
        return collate(items)

    chosen = (torch.optim.Adagrad, {"lr": 0.25, "initial_accumulator_value": 0.5})
    trainer = tiny_trainer(
        str(tmp_path), method="fixmatch", optimizer_cls_and_kwargs=chosen, data_collator=collator, max_steps=1
    )
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, torch.optim.Adagrad)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.25, 0.5]  # the head's is twice
    assert {group["initial_accumulator_value"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    assert set(batches) == {4}


def test_predict_returns_class_ids_masks_and_scores_of_the_exported_model(tmp_path):
    rows = tiny_rows()
    trainer = tiny_trainer(str(tmp_path), tiny_model(torch.float32), method="fixmatch", max_steps=1)
    trainer.train()
    output = trainer.predict(rows)
    for row, predicted, mask in zip(rows, output.predictions, output.label_ids, strict=True):
        pixels = trainer.processing_class(row["image"], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            logits = trainer.teacher.model(pixels).logits
        assert np.array_equal(predicted, logits[0].argmax(0).numpy())
        assert np.array_equal(mask, np.asarray(row["mask"]))
    hits = sum((p == m).sum() for p, m in zip(output.predictions, output.label_ids, strict=True))
    pixels = sum(mask.size for mask in output.label_ids)
    assert output.metrics["test_overall_accuracy"] == pytest.approx(hits / pixels)
    images_alone = trainer.predict(rows.remove_columns("mask"))
    assert images_alone.label_ids is None and images_alone.metrics == {}
    assert np.array_equal(images_alone.predictions[0], output.predictions[0])


def test_several_evaluation_sets_are_scored_by_name(tmp_path):
    rows = tiny_rows(6)
    parts = {"near": rows.select(range(2)), "far": rows.select(range(2, 6))}
    trainer = tiny_trainer(
        str(tmp_path),
        tiny_model(torch.float32),
        method="supervised",
        max_steps=1,
        eval_dataset=parts,
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    for name, part in parts.items():
        expected = evaluate_images(trainer.model, part, trainer.processing_class).scores()["mean_iou"]
        assert logged[f"eval_{name}_mean_iou"] == expected
    assert trainer.evaluate("far")["eval_far_mean_iou"] == logged["eval_far_mean_iou"]


@pytest.mark.parametrize(
    ("method", "groups", "views"),
    [
        ("unimatch_v1", {"labeled", "unlabeled", "partner"}, 2),
        ("unimatch_v2", {"labeled", "unlabeled"}, 2),
        ("fixmatch", {"labeled", "unlabeled"}, 1),
        ("supervised", {"labeled", "unlabeled"}, 0),
    ],
)
def test_the_pairs_have_the_views_that_the_trainers_method_needs(tmp_path, method, groups, views):
    pairs = PairedDataset.from_arguments(shapes(), DATA, seed=0)
    dataset = tiny_trainer(str(tmp_path), method=method, method_options={}, train_dataset=pairs).train_dataset
    item = dataset[0, 1, 2]
    assert item.keys() == groups
    assert len(item["unlabeled"]["strong_pixel_values"]) == views
    assert not pairs.second_draw  # what the user made stays as it was
