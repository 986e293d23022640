"""LoRA students: what is trained, resumed, merged, exported and loaded again, at tiny size."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSemanticSegmentation

from pos_hf.data import DataArguments, PairedDataset, load_data
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference, predict_images
from pos_hf.hub.files import run_files
from pos_hf.models import build_model
from pos_hf.models.adapters import add_lora, has_adapters, merged
from pos_hf.runs.build import build_student
from pos_hf.runs.config import ModelArguments

from .resuming import SaveAt, digests
from .tiny import tiny_trainer

DATA = DataArguments(
    dataset="shapes", num_labeled=4, num_unlabeled=8, num_test=2, crop_size=32, selection_share=0.0
)
SMALL = {
    "num_hidden_layers": 4,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
    "out_indices": [1, 2, 3, 4],
    "model_type": "dinov2",
}


@pytest.fixture(scope="module")
def data():
    return load_data(DATA)


def base_model(data):
    torch.manual_seed(0)
    return build_model(
        "dinov2_dpt_tiny",
        data.id2label,
        backbone_config=SMALL,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
    )


def adapted_model(data, **options):
    model = base_model(data)
    add_lora(model, {"r": 2, "lora_alpha": 8, **options})
    return model


def trainer_of(folder, data, model=None, **arguments):
    model = model or adapted_model(data, lora_dropout=0.1)
    defaults = {"method": "unimatch_v2", "method_options": {"threshold": 0.2}, "max_steps": 4, "seed": 0}
    pairs = PairedDataset.from_arguments(data, DATA, seed=0)
    return tiny_trainer(str(folder), model, train_dataset=pairs, **(defaults | arguments))


def randomised(model):
    """B begins at 0, where merging is nothing."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return model


def test_adapters_and_head_alone_are_trained_and_begin_as_the_base(data):
    base, model = base_model(data), adapted_model(data)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    linear = [name for name, m in base.backbone.named_modules() if isinstance(m, torch.nn.Linear)]
    expected = {f"backbone.{name}.lora_{side}.default.weight" for name in linear for side in "AB"}
    assert trained == expected | {name for name, _ in base.named_parameters() if name.startswith("head")}
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images).logits, base.eval()(images).logits)


def test_merging_adds_the_scaled_product_of_the_factors(data):
    model = randomised(adapted_model(data))
    plain = merged(model)
    assert not has_adapters(plain) and has_adapters(model)
    weights, base = model.state_dict(), base_model(data).state_dict()
    for name, weight in plain.state_dict().items():
        expected = base[name]
        key = name.removesuffix(".weight")
        if f"{key}.lora_A.default.weight" in weights:
            product = weights[f"{key}.lora_B.default.weight"] @ weights[f"{key}.lora_A.default.weight"]
            expected = expected + 8 / 2 * product
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            plain.eval()(images).logits, model.eval()(images).logits, rtol=1e-3, atol=1e-4
        )


def test_convolutions_can_be_adapted_by_the_ends_of_their_names(data):
    model = build_model("deeplabv3plus_tiny", data.id2label)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    add_lora(model, {"r": 2, "target_modules": ["shortcut.convolution"]})
    adapted = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert adapted and all("shortcut.convolution" in name for name in adapted)
    plain = merged(randomised(model)).state_dict()
    changed = {name for name in base if not torch.equal(plain[name], base[name])}
    assert changed == {name.replace("lora_A.default.", "") for name in adapted}


def test_a_run_leaves_the_base_alone_and_resumes_bit_for_bit(tmp_path, data):
    whole = trainer_of(tmp_path, data, callbacks=[SaveAt((2,))])
    before = copy.deepcopy(whole.model.state_dict())
    versions = {name: p._version for name, p in whole.teacher.model.named_parameters()}
    whole.train()
    followed = {name for name, p in whole.teacher.model.named_parameters() if p._version != versions[name]}
    trained = {name for name, p in whole.model.named_parameters() if p.requires_grad}
    assert followed == trained
    assert {n for n, v in whole.model.state_dict().items() if not torch.equal(v, before[n])} == trained
    assert sum(len(group["params"]) for group in whole.optimizer.param_groups) == len(trained)

    resumed = trainer_of(tmp_path, data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert digests(resumed) == digests(whole)


def test_the_best_of_a_lora_run_is_loaded_again(tmp_path, data):
    evaluated = {"eval_dataset": data.test, "eval_strategy": "steps", "eval_steps": 1}
    saved = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    trainer = trainer_of(tmp_path, data, **evaluated, **saved, max_steps=3)
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    for model, folder in ((trainer.model, best), (trainer.teacher.model, best / "teacher")):
        saved = load_file(folder / "model.safetensors")
        assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_the_export_is_merged_and_the_adapter_beside_it_is_pefts(tmp_path, data, bias):
    trainer = trainer_of(tmp_path / "run", data, model=adapted_model(data, lora_dropout=0.1, bias=bias))
    randomised(trainer.model)
    trainer.train()
    trainer.save_model()
    run, teacher = tmp_path / "run", trainer.teacher.model.eval()
    assert not [
        name for name in load_file(run / "model.safetensors") if "lora" in name or "base_layer" in name
    ]
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = teacher(images).logits
        loaded = AutoModelForSemanticSegmentation.from_pretrained(run).eval()
        torch.testing.assert_close(loaded(images).logits, expected, rtol=1e-3, atol=1e-4)
        student = AutoModelForSemanticSegmentation.from_pretrained(run / "student").eval()
        logits = trainer.model.eval()(images).logits
        torch.testing.assert_close(student(images).logits, logits, rtol=1e-3, atol=1e-4)
        again = PeftModel.from_pretrained(base_model(data), str(run / "adapter")).eval()
        torch.testing.assert_close(again(images).logits, expected, rtol=1e-5, atol=1e-6)
    model, processor = load_for_inference(str(run), "cpu")
    (prediction,) = predict_images(model, data.test["image"][:1], processor)
    assert prediction.shape == (64, 64)
    pushed = run_files(run, "# card")
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < pushed.keys()
    assert str(tmp_path) not in (run / "adapter" / "adapter_config.json").read_text()


def test_a_config_asks_for_lora_and_is_answered_in_one_sentence(tmp_path, data):
    base_model(data).save_pretrained(tmp_path)
    model = build_student(ModelArguments(model=str(tmp_path), peft='{"r": 4}'), data)
    assert has_adapters(model) and model.peft_config["default"].r == 4
    with pytest.raises(InputError, match="leave out freeze_backbone"):
        ModelArguments(model=str(tmp_path), peft={"r": 4}, freeze_backbone=True)
    for options, message in [
        ({"rr": 4}, "make no LoRA: .*'rr'"),
        ({"r": 0}, "make no LoRA: .*`r`"),
        ({"target_modules": ["none"]}, "has no layer named 'none'"),
        ({"target_modules": "q_proj"}, "target_modules is 'q_proj', but"),
        ({"target_modules": [1]}, "target_modules"),
    ]:
        with pytest.raises(InputError, match=message):
            build_student(ModelArguments(model=str(tmp_path), peft=options), data)
    with pytest.raises(InputError, match="random weights of dinov2_dpt_tiny"):
        build_student(ModelArguments(peft={"r": 4}), data)
    with pytest.raises(InputError, match="has no linear layer: name some"):
        add_lora(build_model("deeplabv3plus_tiny", data.id2label), {"r": 4})
