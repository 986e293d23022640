import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainerCallback,
)

from pos_hf.balancing import POS, Gramian
from pos_hf.errors import InputError, TrainingStopped
from pos_hf.methods import LossTerm, Method, predict_logits
from pos_hf.training import POSConfig, POSTrainer
from pos_hf.training.arguments import gpu_multiplies_bf16

from .tiny import NUM_CLASSES, tiny_model, tiny_trainer

PAPER = {"min_weight": 0}


class PoisonedMethod(Method):
    """A supervised loss that is not finite at chosen steps, and an unsupervised one that is."""

    def __init__(self, poisoned: set[int]) -> None:
        super().__init__()
        self.poisoned = poisoned
        self.step = 0
        self.uses_teacher = False

    def losses(self, student, teacher, batch):
        logits = predict_logits(student, batch["labeled"]["pixel_values"])
        factor = float("inf") if self.step in self.poisoned else 1.0
        self.step += 1
        yield LossTerm("supervised", logits.square().mean() * factor)
        yield LossTerm(
            "unsupervised", predict_logits(student, batch["unlabeled"]["pixel_values"]).abs().mean()
        )


class RecordWeights(TrainerCallback):
    """Keeps the student's weights after every step."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd", "adamw_torch"])
@pytest.mark.parametrize("strategy", ["pos", "uniform"])
def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted(tmp_path, optim, strategy):
    record = RecordWeights()
    trainer = tiny_trainer(
        str(tmp_path), method=PoisonedMethod({2}), strategy=strategy, optim=optim, callbacks=[record]
    )
    before = nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
    trainer.train()
    path = [before, *record.weights]
    changed = [not torch.equal(old, new) for old, new in itertools.pairwise(path)]
    assert changed == [True, True, False, True, True]
    assert path[-1].isfinite().all()
    skipped = [entry["skipped_steps"] for entry in trainer.state.log_history if "loss" in entry]
    assert skipped == [0, 0, 1, 0, 0]


def test_training_stops_after_too_many_skipped_steps_in_a_row(tmp_path):
    method = PoisonedMethod({2, 3, 4})
    trainer = tiny_trainer(str(tmp_path), method=method, max_steps=8, max_skipped_steps=3)
    with pytest.raises(TrainingStopped, match="3 steps in a row"):
        trainer.train()


def test_the_logged_statistics_are_those_of_the_gradients(tmp_path):
    seen = []

    def spy(gramian: Gramian):
        seen.append([number.item() for number in gramian])
        return torch.tensor(0.25).double(), torch.tensor(0.75).double()

    trainer = tiny_trainer(str(tmp_path), method="fixmatch", strategy=spy, logging_steps=5)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "cosine" in entry)
    a, c, b = torch.tensor(seen, dtype=torch.float64).T
    update = (0.25**2 * a + 2 * 0.25 * 0.75 * b + 0.75**2 * c).sqrt()
    to_s, to_u = (0.25 * a + 0.75 * b) / a.sqrt() / update, (0.25 * b + 0.75 * c) / c.sqrt() / update
    expected = {
        "cosine": (b / (a * c).sqrt()).mean(),
        "conflict_share": (b < 0).double().mean(),
        "min_cosine": torch.minimum(to_s, to_u).mean(),
        "supervised_norm": a.sqrt().mean(),
        "unsupervised_norm": c.sqrt().mean(),
        "supervised_norm_variance": a.sqrt().var(correction=0),
        "unsupervised_norm_variance": c.sqrt().var(correction=0),
        "supervised_weight": 0.25,
        "unsupervised_weight": 0.75,
        "grad_norm": update[-1],
        "degenerate_steps": 0,
    }
    for name, value in expected.items():
        assert log[name] == pytest.approx(float(value), rel=1e-6, abs=1e-9), name
    assert log["loss"] == pytest.approx((log["supervised_loss"] + log["unsupervised_loss"]) / 2, rel=1e-5)
    assert 0 <= log["kept_share"] <= 1


def test_the_log_counts_the_steps_that_the_bound_decided(tmp_path):
    seen = []

    class Spy(POS):
        def __call__(self, gramian: Gramian):
            seen.append(torch.stack(list(gramian)))
            return super().__call__(gramian)

    trainer = tiny_trainer(str(tmp_path), strategy=Spy(min_weight=0.3), logging_steps=5)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "cosine" in entry)
    a, c, b = torch.stack(seen).T
    alpha = (a - b) / (a + c - 2 * b)
    assert len(seen) == 5
    assert log["bounded_share"] == pytest.approx(((alpha <= 0.3) | (alpha >= 0.7)).double().mean().item())


def test_a_step_without_a_confident_pixel_is_counted_as_degenerate(tmp_path):
    trainer = tiny_trainer(
        str(tmp_path), method="fixmatch", method_options={"threshold": 1.0}, max_steps=2, logging_steps=2
    )
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "cosine" in entry or "meo_gain" in entry)
    assert log["kept_share"] == 0
    assert log["degenerate_steps"] == 2
    assert (log["supervised_weight"], log["unsupervised_weight"]) == (0.5, 0.5)


@pytest.mark.parametrize("burn_in", [3, 0.6])
def test_burn_in_is_the_uniform_average_and_survives_a_resume(tmp_path, burn_in):
    asked = []

    def spy(gramian: Gramian):
        asked.append(gramian)
        return torch.tensor(0.9).double(), torch.tensor(0.1).double()

    options = {"method": "fixmatch", "logging_steps": 1, "max_steps": 5, "strategy_burn_in_steps": burn_in}
    options |= {"save_strategy": "steps", "save_steps": 2}
    trainer = tiny_trainer(str(tmp_path), strategy=spy, **options)
    trainer.train()
    logged = [e["supervised_weight"] for e in trainer.state.log_history if "supervised_weight" in e]
    assert logged == pytest.approx([0.5, 0.5, 0.5, 0.9, 0.9])
    asked.clear()
    resumed = tiny_trainer(str(tmp_path), strategy=spy, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(asked) == 2
    for ours, theirs in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_burn_in_comes_before_fixed_weights_as_well(tmp_path):
    fixed = {"strategy": "fixed", "strategy_options": {"supervised": 0.9, "unsupervised": 0.1}}
    options = {"method": "fixmatch", "max_steps": 3, "strategy_burn_in_steps": 2, "optim": "sgd"}

    def step(gramian: Gramian):
        return torch.tensor(0.9).double(), torch.tensor(0.1).double()

    one, other = (
        tiny_trainer(str(tmp_path), **options, **fixed),
        tiny_trainer(str(tmp_path), strategy=step, **options),
    )
    plain = tiny_trainer(str(tmp_path), **options | {"strategy_burn_in_steps": 0}, **fixed)
    for trainer in (one, other, plain):
        trainer.train()
    weights = [nn.utils.parameters_to_vector(trainer.model.parameters()) for trainer in (one, other, plain)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)
    assert not torch.allclose(weights[0], weights[2], rtol=0, atol=1e-4)
    assert one.integration.holds_pair and not plain.integration.holds_pair


def test_the_norm_from_the_gramian_is_the_norm_of_the_gradient(tmp_path):
    class Check(TrainerCallback):
        norms: list[float] = []  # noqa: RUF012

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            self.norms.append(torch.cat(gradients).norm().item())

    trainer = tiny_trainer(str(tmp_path), method="fixmatch", strategy_options=PAPER, callbacks=[Check()])
    trainer.train()
    logged = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert logged == pytest.approx(Check.norms, rel=1e-6)


@pytest.mark.parametrize("method", ["fixmatch", "unimatch_v2", "supervised"])
def test_holding_the_pair_under_a_fixed_strategy_changes_no_weight(tmp_path, method):
    weights = []
    for measure in (False, True):
        trainer = tiny_trainer(
            str(tmp_path), method=method, strategy="uniform", measure_gradients=measure, optim="sgd"
        )
        trainer.train()
        weights.append(nn.utils.parameters_to_vector(trainer.model.parameters()))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("strategy", "backwards"), [("uniform", 2), ("pos", 3)])
def test_fixed_weights_take_one_backward_a_graph(tmp_path, strategy, backwards):
    options = {"partner": "flip"}
    trainer = tiny_trainer(
        str(tmp_path), method="unimatch_v1", method_options=options, strategy=strategy, max_steps=2
    )
    backward, calls = trainer.accelerator.backward, []
    trainer.accelerator.backward = lambda *args, **kwargs: calls.append(0) or backward(*args, **kwargs)
    trainer.train()
    assert len(calls) == 2 * backwards


def test_a_parameter_that_no_loss_uses_is_never_decayed(tmp_path):
    trainer = tiny_trainer(str(tmp_path), method="fixmatch", weight_decay=0.5)
    trainer.train()
    assert trainer.model.unused.tolist() == [1, 1, 1]


def test_a_scope_restricts_the_gramian_and_not_the_update(tmp_path):
    seen = []

    def spy(gramian: Gramian):
        seen.append(gramian.supervised.item())
        return torch.tensor(0.5).double(), torch.tensor(0.5).double()

    sizes = {}
    for scope in (None, "backbone", "head"):
        seen.clear()
        trainer = tiny_trainer(
            str(tmp_path), method="fixmatch", strategy=spy, gradient_scope=scope, max_steps=1
        )
        before = tiny_model().state_dict()
        trainer.train()
        changed = {n for n, p in trainer.model.state_dict().items() if not torch.equal(p, before[n])}
        assert changed == {"backbone.weight", "backbone.bias", "head.weight", "head.bias"}
        sizes[scope] = seen[0]
    assert sizes["backbone"] + sizes["head"] == pytest.approx(sizes[None])


def test_the_learning_rate_metric_weights_each_group(tmp_path):
    seen = {}
    for metric in ("euclidean", "learning_rate"):

        def spy(gramian: Gramian, metric: str = metric):
            seen[metric] = gramian.supervised.item()
            return torch.tensor(0.5).double(), torch.tensor(0.5).double()

        for scope in ("backbone", "head"):
            tiny_trainer(
                str(tmp_path),
                method="fixmatch",
                strategy=spy,
                gradient_metric=metric,
                gradient_scope=scope,
                max_steps=1,
            ).train()
            seen[metric, scope] = seen[metric]
    assert seen["learning_rate", "backbone"] == pytest.approx(0.05 * seen["euclidean", "backbone"])
    assert seen["learning_rate", "head"] == pytest.approx(0.1 * seen["euclidean", "head"])


def test_a_scope_without_parameters_is_refused(tmp_path):
    with pytest.raises(InputError, match="'decoder' names no trainable parameter"):
        tiny_trainer(str(tmp_path), method="fixmatch", gradient_scope="decoder").train()


def test_a_frozen_backbone_trains_the_head_alone(tmp_path):
    model = tiny_model()
    model.backbone.requires_grad_(False)
    before = model.backbone.weight.clone()
    trainer = tiny_trainer(str(tmp_path), model, method="unimatch_v2", strategy_options=PAPER)
    trainer.train()
    assert torch.equal(trainer.model.backbone.weight, before)
    assert not torch.equal(trainer.model.head.weight, tiny_model().head.weight)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"torch_compile": True, "torch_compile_backend": "eager"}, 1e-6),
        ({"activation_checkpointing": True}, 1e-6),
        ({"bf16": True}, 2e-2),
    ],
    ids=str,
)
def test_other_ways_to_run_the_same_step(tmp_path, options, tolerance):
    def train(**extra):
        model = tiny_segformer() if "activation_checkpointing" in options else tiny_model(torch.float32)
        trainer = tiny_trainer(
            str(tmp_path), model, method="fixmatch", strategy_options=PAPER, optim="sgd", **extra
        )
        trainer.train()
        return nn.utils.parameters_to_vector(trainer.model.parameters())

    torch.testing.assert_close(train(**options), train(), rtol=tolerance, atol=tolerance)


def tiny_segformer() -> PreTrainedModel:
    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=NUM_CLASSES,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        sr_ratios=[1, 1, 1, 1],
        decoder_hidden_size=8,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    return SegformerForSemanticSegmentation(config)


def test_a_hub_model_without_feature_perturbation_trains_with_unimatch_v2(tmp_path):
    trainer = tiny_trainer(str(tmp_path), tiny_segformer(), method="unimatch_v2", strategy_options=PAPER)
    before = nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
    trainer.train()
    assert not torch.equal(nn.utils.parameters_to_vector(trainer.model.parameters()), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "poss"}, "did you mean 'pos'"),
        ({"strategy_options": {"gain": 1}}, "gain"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
        ({"bf16_full_eval": True}, "bf16_full_eval"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"optim": "lomo"}, "steps inside the backward"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, "DeepSpeed"),
        ({"ddp_static_graph": True, "gradient_accumulation_steps": 2}, "ddp_static_graph"),
        ({"gradient_metric": "cosine"}, "gradient_metric"),
    ],
)
def test_what_cannot_be_exact_is_refused_in_one_sentence(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message) as refusal:
        POSConfig(output_dir=str(tmp_path), use_cpu=True, **arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "launched_with", "expected"),
    [
        ({}, "no", True),
        ({"bf16": False}, "no", False),
        ({"fp16": True}, "no", False),
        ({"use_cpu": True}, "no", False),
        ({}, "fp16", False),
    ],
)
def test_bf16_is_the_default_with_a_gpu_that_multiplies_it(
    tmp_path, monkeypatch, arguments, launched_with, expected
):
    assert POSConfig(output_dir=str(tmp_path)).bf16 is gpu_multiplies_bf16()
    monkeypatch.setattr("pos_hf.training.arguments.gpu_multiplies_bf16", lambda: True)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched_with)
    assert POSConfig(output_dir=str(tmp_path), **arguments).bf16 is expected


def test_an_unknown_method_is_answered_with_the_nearest_one(tmp_path):
    with pytest.raises(InputError, match="did you mean 'fixmatch'"):
        tiny_trainer(str(tmp_path), method="fixmach", method_options={})


def test_the_teacher_is_exported_with_the_student_beside_it(tmp_path):
    trainer = tiny_trainer(str(tmp_path), tiny_segformer(), method="fixmatch", strategy_options=PAPER)
    trainer.train()
    trainer.save_model()
    for folder, model in ((tmp_path, trainer.teacher.model), (tmp_path / "student", trainer.model)):
        saved = load_file(folder / "model.safetensors")
        for name, value in model.state_dict().items():
            if name in saved:
                assert torch.equal(saved[name], value), name
        assert json.loads((folder / "preprocessor_config.json").read_text())["do_resize"] is False
    assert not list(Path(tmp_path).glob("**/training_args.bin"))


def test_few_of_the_trainers_private_methods_are_overridden():
    """A new release of transformers may change any of them: look at these six first."""
    ours = POSTrainer.__mro__[: POSTrainer.__mro__.index(Trainer)]
    overridden = {
        name for part in ours for name in vars(part) if name.startswith("_") and not name.startswith("__")
    } & set(dir(Trainer))
    assert overridden == {
        "_get_grad_norm",
        "_get_train_sampler",
        "_load_rng_state",
        "_prepare_for_training",
        "_run_epoch",
        "_save_checkpoint",
    }
    for name in overridden:
        assert getattr(POSTrainer, name).__doc__, f"{name} does not say why"
    assert [part.__name__ for part in ours] == ["POSTrainer", "TeacherStudentTrainer"]
