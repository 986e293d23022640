"""What a run says when it has to stop or is about to, and that bad images are always replaced alike."""

import json
import logging
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from pos_hf.cli import main as cli
from pos_hf.data import DataArguments, PairedDataset, Views, collate, load_data
from pos_hf.errors import InputError, TrainingStopped
from pos_hf.evaluation import evaluate_images
from pos_hf.methods import LossTerm, Method, predict_logits
from pos_hf.training import POSConfig
from pos_hf.training.advice import advice_on_evaluation, advice_on_failure
from pos_hf.training.guards import FAILURE_FILE, warn_of_spike

from .disks import on_a_small_disk
from .killing import fork
from .tiny import TinyPairs, tiny_model, tiny_rows, tiny_trainer


class Overflowing(Method):
    """The unsupervised loss is infinite from a step on to another; remembers the images of every step."""

    uses_teacher = False

    def __init__(self, first: int, last: int = 100) -> None:
        super().__init__()
        self.first = first
        self.last = last
        self.seen: list[torch.Tensor] = []

    def losses(self, student, teacher, batch):
        self.seen.append(batch["unlabeled"]["pixel_values"])
        factor = float("inf") if self.first < len(self.seen) <= self.last else 1.0
        yield LossTerm(
            "supervised", predict_logits(student, batch["labeled"]["pixel_values"]).square().mean()
        )
        logits = predict_logits(student, batch["unlabeled"]["pixel_values"])
        yield LossTerm("unsupervised", logits.abs().mean() * factor)


@pytest.mark.parametrize("strategy", ["pos", "uniform"])
def test_a_stop_names_the_objective_and_leaves_the_batch_to_replay(tmp_path, strategy):
    method, pairs = Overflowing(first=2), TinyPairs()
    trainer = tiny_trainer(
        str(tmp_path), method=method, strategy=strategy, train_dataset=pairs, max_steps=9, max_skipped_steps=3
    )
    with pytest.raises(TrainingStopped, match=r"step 5 in the unsupervised loss.*unlabeled_\d"):
        trainer.train()
    report = json.loads((tmp_path / FAILURE_FILE).read_text())
    assert report["step"] == 5 and report["not_finite"] == ["unsupervised"]
    again = collate([pairs[tuple(key)] for key in report["keys"]])
    assert torch.equal(trainer.device_batch(again)["unlabeled"]["pixel_values"], method.seen[4])
    assert report["ids"] == [pairs.names(tuple(key)) for key in report["keys"]]


def test_a_shorter_batch_after_the_failure_does_not_take_the_blame(tmp_path):
    trainer = tiny_trainer(
        str(tmp_path),
        method=Overflowing(first=0, last=1),
        train_dataset=TinyPairs(num_unlabeled=6),
        dataloader_drop_last=False,
        max_steps=4,
        max_skipped_steps=1,
        logging_steps=2,
    )
    with pytest.raises(TrainingStopped, match="step 1 in the unsupervised loss"):
        trainer.train()


def test_a_stop_inside_an_accumulated_step_keeps_all_its_batches(tmp_path):
    trainer = tiny_trainer(
        str(tmp_path), method=Overflowing(first=1), gradient_accumulation_steps=2, max_skipped_steps=1
    )
    with pytest.raises(TrainingStopped, match="step 1 in the unsupervised loss"):
        trainer.train()
    report = json.loads((tmp_path / FAILURE_FILE).read_text())
    assert len(report["keys"]) == 8
    losses = [row[1] for row in report["losses_then_squared_gradient_norms"]]
    assert [loss in ("inf", "nan") for loss in losses] == [False, True, True]


def test_a_loss_far_above_the_usual_is_warned_of(caplog):
    history = [{"loss": 1.0 + step % 3 / 10} for step in range(30)] + [{"eval_mean_iou": 0.1}]
    for loss, warned in ((1.0, False), (3.2, False), (3.4, True), (float("nan"), True)):
        caplog.clear()
        warn_of_spike(history, loss, step=31)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned
    caplog.clear()
    warn_of_spike(history[:4], 100.0, step=5)
    assert not caplog.records


class Explode(TrainerCallback):
    """Makes a weight infinite, or all of them too large to compute with, after a step."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            model.head.weight.fill_(self.value)
            model.backbone.weight.fill_(1.0)


WHEN = [
    {"eval_strategy": "steps", "eval_steps": 1},
    {"save_strategy": "steps", "save_steps": 1},
    {},
]


@pytest.mark.parametrize("when", WHEN, ids=str)
def test_weights_that_are_not_finite_are_neither_scored_nor_saved(tmp_path, when):
    trainer = tiny_trainer(
        str(tmp_path),
        method="fixmatch",
        callbacks=[Explode(float("inf"))],
        eval_dataset=tiny_rows(),
        max_steps=1,
        logging_strategy="no",
        **when,
    )
    with pytest.raises(TrainingStopped, match="weights of the student are not finite after step 1: lower"):
        trainer.train()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", WHEN, ids=str)
def test_a_run_of_skipped_steps_is_noticed_without_logs(tmp_path, when):
    trainer = tiny_trainer(
        str(tmp_path),
        method=Overflowing(first=0),
        eval_dataset=tiny_rows(),
        max_steps=2,
        max_skipped_steps=10 if when == {} else 1,
        logging_strategy="no",
        **when,
    )
    with pytest.raises(TrainingStopped, match=r"[12] steps in a row .* in the unsupervised loss"):
        trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == [FAILURE_FILE]


def test_probabilities_that_are_not_finite_are_said_and_not_counted(tmp_path):
    trainer = tiny_trainer(str(tmp_path), tiny_model(torch.float32), method="supervised")
    trainer.model.head.weight.data.fill_(3e38)
    trainer.model.head.bias.data.copy_(torch.tensor([0.0, float("inf"), float("inf")]))
    for detailed in (False, True):
        with pytest.raises(TrainingStopped, match="probabilities that are not finite"):
            evaluate_images(trainer.model, tiny_rows(), trainer.processing_class, detailed=detailed)


BATCH_OF_8 = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
KILLED = "DataLoader worker (pid 7) is killed by signal: "


@pytest.mark.parametrize(
    ("error", "settings", "can_checkpoint", "advice"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            BATCH_OF_8,
            True,
            "per_device_train_batch_size: 4 with gradient_accumulation_steps: 4, or gradient_checkpointing",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            BATCH_OF_8,
            False,
            "gradient_accumulation_steps: 4, and go on from the last checkpoint",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            {"per_device_train_batch_size": 1, "gradient_checkpointing": True},
            True,
            "crop_size 64: start",
        ),
        (RuntimeError(f"{KILLED}Killed. "), {}, True, "lower dataloader_num_workers"),
        (RuntimeError(f"{KILLED}Bus error. It is possible that workers are out of shared memory"), {}, True,
         "--shm-size"),
        (RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"), {}, True,
         "/dev/shm"),
        (OSError(24, "Too many open files"), {}, True, "ulimit -n"),
        (RuntimeError("Too many open files. Communication with the workers is no longer possible."), {}, True,
         "ulimit -n"),
    ],
)  # fmt: skip
def test_an_exhausted_machine_becomes_the_advice_that_fits(tmp_path, error, settings, can_checkpoint, advice):
    args = POSConfig(output_dir=str(tmp_path), use_cpu=True, **settings)
    with pytest.raises(TrainingStopped) as stopped, advice_on_failure(args, 64, can_checkpoint):
        raise error
    assert advice in str(stopped.value) and "bf16" not in str(stopped.value)
    assert "\n" not in str(stopped.value)
    for other in (RuntimeError("another"), OSError(2, "another")):
        with pytest.raises(type(other), match="another"), advice_on_failure(args, 64, can_checkpoint):
            raise other


@pytest.mark.parametrize(
    ("batch", "advice"), [(8, "per_device_eval_batch_size: 1, or smaller"), (1, "try smaller")]
)
def test_memory_in_evaluation_is_not_freed_by_a_crop_or_a_training_batch(tmp_path, batch, advice):
    args = POSConfig(output_dir=str(tmp_path), use_cpu=True, per_device_eval_batch_size=batch)
    with (
        pytest.raises(TrainingStopped) as stopped,
        advice_on_failure(args, 64, can_checkpoint=True),
        advice_on_evaluation(args, "the model"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    said = str(stopped.value)
    assert advice in said and "pos-hf evaluate --window" in said
    assert "crop_size" not in said and "train_batch" not in said and "gradient_checkpointing" not in said


def test_a_worker_that_is_killed_ends_training_with_advice(tmp_path):
    class Killed(TinyPairs):
        def __getitem__(self, key):
            os.kill(os.getpid(), signal.SIGKILL)

    trainer = tiny_trainer(str(tmp_path), train_dataset=Killed(), dataloader_num_workers=1)
    advice = advice_on_failure(trainer.args, 64, can_checkpoint=True)
    with pytest.raises(TrainingStopped, match="data workers was killed"), advice:
        trainer.train()


def test_a_small_shared_memory_is_named(tmp_path):
    said = tmp_path / "said"

    def train() -> None:
        trainer = tiny_trainer(
            str(tmp_path), train_dataset=TinyPairs(num_unlabeled=8, size=64), dataloader_num_workers=1
        )
        advice = advice_on_failure(trainer.args, 64, can_checkpoint=True)
        with pytest.raises(TrainingStopped) as stopped, advice:
            trainer.train()
        said.write_text(str(stopped.value))

    _, status = os.waitpid(fork(on_a_small_disk, Path("/dev/shm"), 64, train), 0)
    if os.waitstatus_to_exitcode(status) == 77:
        pytest.skip("mounting is not allowed here")
    assert "the shared memory (/dev/shm, 0 MiB) is too small" in said.read_text()
    assert "--shm-size" in said.read_text() and "\n" not in said.read_text()


def test_a_limit_of_open_files_under_which_workers_hang_is_refused(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, before[1]))
    try:
        with pytest.raises(InputError, match=r"only 60 files .* dataloader_num_workers 4 .*ulimit -n"):
            POSConfig(output_dir=str(tmp_path), use_cpu=True, dataloader_num_workers=4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_single_labeled_image_under_batchnorm_becomes_advice(tmp_path):
    args = POSConfig(output_dir=str(tmp_path), use_cpu=True)
    with (
        pytest.raises(TrainingStopped, match="single labeled image"),
        advice_on_failure(args, 64, can_checkpoint=True),
    ):
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    with pytest.raises(ValueError, match="another"), advice_on_failure(args, 64, can_checkpoint=True):
        raise ValueError("another")


def test_a_stopped_run_is_one_sentence_and_exit_code_1(monkeypatch, capsys):
    def stop(argv):
        raise TrainingStopped("the memory is too small: buy more")

    monkeypatch.setattr("pos_hf.cli.report.main", stop)
    assert cli.main(["report"]) == 1
    assert capsys.readouterr().err == "pos-hf report: the memory is too small: buy more\n"


@pytest.fixture
def damaged(tmp_path):
    """Six labeled and six unlabeled images, three of which break after the data were checked."""
    for name in ("images", "masks", "unlabeled"):
        (tmp_path / name).mkdir()
    for index in range(6):
        Image.new("RGB", (12, 12), (index * 40, 0, 0)).save(tmp_path / "images" / f"{index}.png")
        Image.new("L", (12, 12), index % 2).save(tmp_path / "masks" / f"{index}.png")
        Image.new("RGB", (12, 12), (0, index * 40, 0)).save(tmp_path / "unlabeled" / f"{index}.png")
    args = DataArguments(dataset=str(tmp_path), class_names=["a", "b"], selection_share=0)
    data = load_data(args)
    for path in ("images/1.png", "images/2.png", "unlabeled/5.png"):
        (tmp_path / path).write_bytes(b"damaged")
    return data


def pairs_of(data, skip_bad):
    return PairedDataset(data.labeled, data.unlabeled, Views(8), seed=0, skip_bad=skip_bad)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_the_run_with_its_path(damaged, workers):
    pairs = pairs_of(damaged, skip_bad=False)
    loader = DataLoader(
        pairs, batch_size=3, sampler=pairs.sampler(0), collate_fn=collate, num_workers=workers
    )
    with pytest.raises(InputError) as error:
        list(loader)
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)
    assert any(name in str(error.value) for name in ("1.png cannot", "2.png cannot", "5.png cannot"))


def test_a_bad_image_is_replaced_by_the_next_one_counted_and_named_once(damaged, caplog):
    pairs = pairs_of(damaged, skip_bad=True)
    item = pairs[0, 1, 5]  # labeled 1 and 2 are damaged, and the unlabeled after the last is the first
    assert item["labeled"]["bad_samples"] == 2 and item["unlabeled"]["bad_samples"] == 1
    assert item["labeled"]["pixel_values"][0].max() == 3 * 40
    assert item["unlabeled"]["pixel_values"].max() == 0
    pairs[1, 1, 5]
    assert sorted(record.args[0].args[0].split("/")[-1][:5] for record in caplog.records) == [
        "1.png",
        "2.png",
        "5.png",
    ]


def test_workers_replace_bad_images_alike(damaged):
    pairs = pairs_of(damaged, skip_bad=True)
    epochs = [
        list(DataLoader(pairs, 2, sampler=pairs.sampler(0), collate_fn=collate, num_workers=workers))
        for workers in (0, 2)
    ]
    assert len(epochs[0]) == 3
    for left, right in zip(*epochs, strict=True):
        for group in left:
            assert all(torch.equal(left[group][name], right[group][name]) for name in left[group])


def test_nothing_readable_is_refused(damaged):
    pairs = pairs_of(damaged, skip_bad=True)
    pairs.unlabeled = damaged.unlabeled.select([5])
    with pytest.raises(InputError, match="no image of the training set"):
        pairs[0, 0, 0]


def test_replaced_images_are_counted_in_the_log(tmp_path):
    class Damaged(TinyPairs):
        def __getitem__(self, key):
            item = super().__getitem__(key)
            item["unlabeled"]["bad_samples"] = torch.tensor(int(key[2] == 7))
            return item

    trainer = tiny_trainer(str(tmp_path), train_dataset=Damaged(), max_steps=6)  # an epoch is six steps
    trainer.train()
    assert sum(entry["bad_samples"] for entry in trainer.state.log_history if "loss" in entry) == 1
