"""Methods inside POSTrainer: one that is not in the package, and state through an interrupted run."""

import re
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback
from transformers.modeling_outputs import SemanticSegmenterOutput

from pos_hf.data import DataArguments, PairedDataset, load_data
from pos_hf.errors import InputError
from pos_hf.evaluation import predict_probabilities
from pos_hf.methods import METHODS, get_method
from tests.training.tiny import TinyConfig, TinySegmenter, tiny_rows, tiny_trainer

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "methods.md"


def documented_method():
    """The class that the page on methods tells the reader to write."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    assert len(code.splitlines()) < 40
    namespace = {}
    exec(code, namespace)
    return namespace["SharpenedFixMatch"]


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("strategy", ["uniform", "pos"])
def test_a_method_from_outside_the_package_trains_and_learns_from_both_objectives(strategy, tmp_path):
    trainer = tiny_trainer(str(tmp_path), method=documented_method()(threshold=0.36), strategy=strategy)
    before = weights(trainer)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["supervised_loss"] > 0 and log["unsupervised_loss"] > 0 and 0 < log["kept_share"] <= 1
    assert not torch.equal(before["head.weight"], trainer.model.head.weight)


def test_a_method_can_be_registered_under_a_name(monkeypatch, tmp_path):
    monkeypatch.setitem(METHODS, "sharpened", documented_method())
    trainer = tiny_trainer(
        str(tmp_path), method="sharpened", method_options={"temperature": 0.2}, max_steps=1
    )
    assert trainer.method.temperature == 0.2
    trainer.train()


class StopAfter(TrainerCallback):
    """Interrupts a run."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


SHORT = [{"name": name, "decay": 0.5} for name in ("freematch", "softmatch", "daw")]


@pytest.mark.parametrize("rule", [*SHORT, "corrmatch", "percentile", "covar"], ids=str)
def test_a_resumed_run_continues_with_the_rules_state_bit_for_bit(rule, tmp_path):
    def trainer(folder, **arguments):
        method = get_method("fixmatch", threshold=rule, distribution_alignment=True)
        return tiny_trainer(
            str(tmp_path / folder),
            method=method,
            save_strategy="steps",
            save_steps=3,
            max_steps=6,
            **arguments,
        )

    whole = trainer("whole")
    whole.train()
    trainer("cut", callbacks=[StopAfter(3)]).train()
    resumed = trainer("cut")
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    for ours, theirs in ((whole.method, resumed.method), (whole.model, resumed.model)):
        for key, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key


def test_a_gate_is_measured_at_each_evaluation_with_the_teacher_and_survives_a_checkpoint(tmp_path):
    def trainer(folder, **arguments):
        return tiny_trainer(
            str(tmp_path / folder),
            method_options={"threshold": {"name": "cw_bass", "threshold": 0.36, "decay": 0.5}},
            eval_dataset=tiny_rows(),
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=3,
            max_steps=5,
            **arguments,
        )

    whole = trainer("whole")
    whole.train()
    trainer("cut", callbacks=[StopAfter(3)]).train()
    resumed = trainer("cut")
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[key]), key
    whole.is_in_train = True
    whole.evaluate()  # once more, with the last teacher
    predicted = whole.predict(tiny_rows())
    kept = right = 0
    for labels, mask, row in zip(predicted.predictions, predicted.label_ids, tiny_rows(), strict=True):
        (probabilities,) = predict_probabilities(whole.teacher.model, [row["image"]], whole.processing_class)
        confident = probabilities[0].amax(0).numpy() >= 0.36
        kept += confident.sum()
        right += (confident & (labels == mask)).sum()
    assert whole.method.rule.held_out.tolist() == [kept, right]
    assert 0 < right < kept


@pytest.mark.parametrize(
    "arguments", [{}, {"eval_dataset": {"a": tiny_rows()}, "eval_strategy": "steps", "eval_steps": 1}]
)
def test_a_gate_without_held_out_labels_is_refused(tmp_path, arguments):
    with pytest.raises(InputError, match="set eval_strategy to steps or epoch, and selection_share"):
        tiny_trainer(str(tmp_path), method_options={"threshold": "cw_bass"}, **arguments)


def test_a_run_too_short_for_its_rule_is_refused_before_its_first_step(tmp_path):
    trainer = tiny_trainer(
        str(tmp_path), method="fixmatch", method_options={"threshold": "freematch"}, max_steps=9
    )
    with pytest.raises(InputError, match=r"remember 999 steps, of a run of 9.* decay to 0\.64 or less"):
        trainer.train()
    assert trainer.state.global_step == 0


class NormedSegmenter(TinySegmenter):
    """The tiny network with BatchNorm, which an unweighted loss could still reach."""

    def __init__(self, config):
        super().__init__(config)
        self.norm = torch.nn.BatchNorm2d(6)
        self.head = torch.nn.Conv2d(6, config.num_labels, 1)

    def forward(self, pixel_values, **kwargs):
        return SemanticSegmenterOutput(logits=self.head(self.norm(self.backbone(pixel_values)).tanh()))


@pytest.mark.parametrize("measured", [False, True], ids=["one backward", "two backwards"])
@pytest.mark.parametrize("method", ["unimatch_v2", "fixmatch"])
def test_with_an_unsupervised_loss_of_weight_0_a_method_is_supervised_training(method, measured, tmp_path):
    data = DataArguments(dataset="shapes", num_labeled=5, num_unlabeled=24, num_test=1, crop_size=16)
    rows = load_data(data)

    def trained(method, **arguments):
        torch.manual_seed(0)
        model = NormedSegmenter(TinyConfig(num_labels=len(rows.id2label)))
        pairs = PairedDataset.from_arguments(rows, data, seed=0)
        arguments |= {"method": method, "method_options": None, "train_dataset": pairs, "max_steps": 8}
        trainer = tiny_trainer(str(tmp_path / method), model, **arguments)
        trainer.train()
        return trainer.model.state_dict()

    off = {"strategy": "fixed", "strategy_options": {"supervised": 1.0, "unsupervised": 0.0}}
    found, expected = trained(method, measure_gradients=measured, **off), trained("supervised")
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
