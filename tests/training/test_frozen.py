"""A frozen backbone: no gradient, no optimizer state, no EMA, and BatchNorm as it was given."""

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.data import DataArguments, load_data
from pos_hf.errors import InputError
from pos_hf.models.freezing import backbone_name, freeze_backbone, frozen_parts
from pos_hf.runs.build import build_student
from pos_hf.runs.config import ModelArguments
from pos_hf.training.teacher import EMATeacher

from .resuming import SaveAt, digests
from .tiny import NUM_CLASSES, TinyConfig, TinySegmenter, tiny_model, tiny_trainer


class NormedSegmenter(TinySegmenter):
    """BatchNorm and dropout in the backbone and in the head."""

    def __init__(self, config):
        super().__init__(config)
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout2d(0.5))
        self.head = nn.Sequential(nn.BatchNorm2d(6), nn.Dropout2d(0.5), nn.Conv2d(6, NUM_CLASSES, 1))

    def forward(self, pixel_values, **kwargs):
        return SemanticSegmenterOutput(logits=self.head(self.backbone(pixel_values).tanh()))


def frozen_model():
    torch.manual_seed(0)
    model = NormedSegmenter(TinyConfig(num_labels=NUM_CLASSES))
    model.backbone[1].running_mean.uniform_(-1, 1)
    freeze_backbone(model)
    return model


def test_a_frozen_backbone_stays_what_it_was_and_the_head_is_trained(tmp_path):
    before = {name: value.clone() for name, value in frozen_model().state_dict().items()}
    trainer = tiny_trainer(str(tmp_path), frozen_model(), method="unimatch_v2", strategy="pos")
    modes = []
    trainer.model.backbone.register_forward_hook(lambda part, *_: modes.append(part.training))
    trainer.train()
    assert modes and not any(modes)
    for model in (trainer.model, trainer.teacher.model):
        state = model.state_dict()
        kept = {name for name, value in before.items() if torch.equal(state[name], value)}
        assert kept == {name for name in before if name.startswith("backbone")} | {"unused"}
    trained = {id(parameter) for parameter in trainer.model.head.parameters()}
    assert {id(parameter) for parameter in trainer.optimizer.state} == trained
    assert all(parameter.grad is None for parameter in trainer.model.backbone.parameters())


def test_the_gramian_is_that_of_the_trained_parameters(tmp_path):
    def gramian_of_first_step(model, **arguments):
        seen = []

        def spy(gramian):
            seen.append(torch.stack(list(gramian)))
            return torch.tensor(0.5).double(), torch.tensor(0.5).double()

        trainer = tiny_trainer(
            str(tmp_path), model, method="fixmatch", strategy=spy, max_steps=1, **arguments
        )
        trainer.train()
        return seen[0]

    frozen = tiny_model()
    freeze_backbone(frozen)
    expected = gramian_of_first_step(tiny_model(), gradient_scope="head")
    torch.testing.assert_close(gramian_of_first_step(frozen), expected, rtol=1e-12, atol=0)
    assert not torch.allclose(gramian_of_first_step(tiny_model()), expected)


def test_the_teacher_does_not_touch_frozen_parameters():
    student = frozen_model()
    teacher = EMATeacher(student)
    with torch.no_grad():
        for parameter in student.head.parameters():
            parameter.add_(1)
    versions = [parameter._version for parameter in teacher.model.backbone.parameters()]
    teacher.update(student, 3)
    assert [parameter._version for parameter in teacher.model.backbone.parameters()] == versions
    for ours, theirs in zip(teacher.model.head.parameters(), student.head.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.75)


def test_a_frozen_run_is_resumed_bit_for_bit(tmp_path):
    def trainer(**arguments):
        return tiny_trainer(str(tmp_path), frozen_model(), method="unimatch_v2", max_steps=4, **arguments)

    whole = trainer(callbacks=[SaveAt((2,))])
    whole.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert digests(resumed) == digests(whole)


def test_frozen_parts_are_the_largest_without_a_trained_parameter():
    model = frozen_model()
    assert frozen_parts(model) == [model.backbone]
    assert frozen_parts(tiny_model()) == []
    model.head[0].requires_grad_(False)
    assert frozen_parts(model) == [model.backbone, model.head[0]]
    model.head[2].requires_grad_(False)
    model.unused.requires_grad_(False)
    assert frozen_parts(model) == [model]


class Headless(TinySegmenter):
    def __init__(self, config):
        super().__init__(config)
        del self.head, self.unused


class WithoutBackbone(TinySegmenter):
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.encoder = self.backbone
        del self.backbone


class LikeUperNet(TinySegmenter):
    base_model_prefix = "model"


def test_what_cannot_be_frozen_is_refused_in_one_sentence():
    config = TinyConfig(num_labels=NUM_CLASSES)
    assert backbone_name(LikeUperNet(config)) == "backbone"
    with pytest.raises(InputError, match="Headless has no parameter outside of its backbone"):
        freeze_backbone(Headless(config))
    with pytest.raises(InputError, match="WithoutBackbone has no part that is its backbone"):
        freeze_backbone(WithoutBackbone(config))
    data = load_data(DataArguments(dataset="shapes", num_labeled=1, num_unlabeled=1, num_test=1))
    with pytest.raises(InputError, match="random weights of dinov2_dpt_tiny: set backbone_weights"):
        build_student(ModelArguments(freeze_backbone=True), data)


def test_a_config_freezes_the_backbone_of_a_models_folder(tmp_path):
    data = load_data(DataArguments(dataset="shapes", num_labeled=1, num_unlabeled=1, num_test=1))
    build_student(ModelArguments(), data).save_pretrained(tmp_path)
    model = build_student(ModelArguments(model=str(tmp_path), freeze_backbone=True), data)
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {"head"}
