"""The same five optimizer steps, whatever the layout of the batch: accumulation, processes, and by hand."""

import itertools

import pytest
import torch
from safetensors.torch import load_file

from pos_hf.data import PairSampler, collate
from tests.launching import launch

from .tiny import TinyPairs, reference_trajectory, tiny_trainer
from .trajectory import COMBINATIONS

LAUNCHES = {(1, "ddp"): ("4x1", "2x2"), (2, "ddp"): ("2x1", "1x2"), (2, "fsdp2"): ("2x1", "1x2")}
"""(processes, engine) -> batch of a process x accumulation."""
LAYOUTS = [(*launched, split) for launched, splits in LAUNCHES.items() for split in splits]


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory) -> dict[tuple, dict[str, torch.Tensor]]:
    found = {}
    for (processes, engine), splits in LAUNCHES.items():
        out = tmp_path_factory.mktemp("trajectories")
        nodes = (
            processes if engine == "ddp" else 1
        )  # each process by a launcher of its own, as on two machines
        launch("tests.training.trajectory", out, engine, *splits, processes=processes, nodes=nodes)
        found |= {(processes, engine, split): load_file(out / f"{split}.safetensors") for split in splits}
    return found


def full_batches(steps: int, size: int, second_draw: bool = False, num_unlabeled: int = 24) -> list[dict]:
    """The first steps' batches as the trainer sees them, normalised in float64."""
    pairs = TinyPairs(num_unlabeled=num_unlabeled, second_draw=second_draw)
    keys = [*PairSampler(len(pairs.labeled), len(pairs.unlabeled), seed=42)]
    mean = torch.tensor([0.485, 0.456, 0.406]).double()[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225]).double()[:, None, None]
    batches = []
    for step in range(steps):
        batch = collate([pairs[key] for key in keys[step * size : (step + 1) * size]])
        for group in batch.values():
            for name, value in group.items():
                if value.dtype == torch.uint8:
                    group[name] = (value.double() / 255 - mean) / std
        batches.append(batch)
    return batches


@pytest.mark.parametrize(("method", "strategy", "optimizer"), COMBINATIONS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_trains_the_reference_trajectory(trajectories, layout, method, strategy, optimizer):
    expected = reference_trajectory(
        full_batches(5, 4, second_draw=method == "unimatch_v1"),
        meo=strategy == "pos_meo",
        uniform=strategy.startswith("uniform"),
        optimizer=optimizer,
        method=method,
    )
    for name, value in expected.items():
        found = trajectories[layout][f"{method}/{strategy}/{optimizer}/{name}"]
        # the trainer normalises pixels in float32, the reference in float64
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=str)
def test_layouts_agree_with_one_another_to_rounding(trajectories, layout):
    for name, value in trajectories[LAYOUTS[0]].items():
        torch.testing.assert_close(trajectories[layout][name], value, rtol=1e-9, atol=1e-10)


def test_the_strategies_train_different_weights(trajectories):
    weights = trajectories[LAYOUTS[0]]
    trained = {
        strategy: weights[f"fixmatch/{strategy}/sgd/backbone.weight"]
        for strategy in ("uniform", "pos", "pos_meo")
    }
    for first, second in itertools.combinations(trained.values(), 2):
        assert (first - second).abs().max() > 1e-4


def test_a_short_last_window_of_an_epoch_is_a_smaller_batch(tmp_path):
    trainer = tiny_trainer(
        str(tmp_path),
        train_dataset=TinyPairs(num_unlabeled=6),
        method="fixmatch",
        strategy_options={"min_weight": 0},
        optim="sgd",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        max_steps=2,
    )
    trainer.train()
    (four,), (six,) = (full_batches(1, size, num_unlabeled=6) for size in (4, 6))
    two = {group: {name: value[4:] for name, value in views.items()} for group, views in six.items()}
    expected = reference_trajectory([four, two], meo=True, uniform=False, optimizer="sgd", method="fixmatch")
    for name, value in expected.items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
