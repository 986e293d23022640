"""Pictures reach a tracker at evaluation steps, show what is predicted, and cost nothing without one."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers.integrations import TrackioCallback, WandbCallback
from transformers.trainer_utils import IntervalStrategy

from pos_hf.evaluation import predict_images
from pos_hf.reporting import overlay, with_legend
from pos_hf.training.pictures import EvaluationPictures, send_pictures

from .tiny import SIZE, tiny_trainer

PALETTE = [[0, 0, 0], [200, 30, 30], [30, 200, 30]]


def rows(number: int = 6) -> Dataset:
    rng = np.random.default_rng(3)
    images = [Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(number)]
    masks = [Image.fromarray(rng.integers(0, 3, (SIZE, SIZE), dtype=np.uint8)) for _ in range(number)]
    return Dataset.from_dict({"id": [f"row_{i}" for i in range(number)], "image": images, "mask": masks})


def trained(folder: Path, report_to: str):
    trainer = tiny_trainer(str(folder), report_to=report_to, max_steps=4, method="fixmatch")
    trainer.eval_dataset = rows()
    trainer.args.eval_strategy, trainer.args.eval_steps = IntervalStrategy.STEPS, 2
    trainer.teacher.model.config.palette = PALETTE
    trainer.train()
    return trainer


def test_tensorboard_gets_the_predictions_and_the_pseudo_labels_at_every_evaluation(tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = trained(tmp_path / "run", "tensorboard")
    events = event_accumulator.EventAccumulator(str(tmp_path / "events"), {"images": 0}).Reload()
    names = [f"predictions/row_{i}" for i in range(4)]
    assert set(events.Tags()["images"]) == {*names, "pseudo_labels"}
    assert [event.step for event in events.Images("pseudo_labels")] == [2, 4]
    last = events.Images(names[1])[-1]
    (mask,) = predict_images(trainer.exported_model, [rows()[1]["image"]], trainer.processing_class)
    labels = list(trainer.exported_model.config.id2label.values())
    expected = with_legend(overlay(rows()[1]["image"], mask, PALETTE), mask, labels, PALETTE)
    (tmp_path / "last.png").write_bytes(last.encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "last.png")), np.asarray(expected))


def test_an_evaluation_predicts_each_image_once_with_each_model(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    seen = {"student": 0, "teacher": 0}
    trainer = tiny_trainer(str(tmp_path / "run"), report_to="tensorboard", max_steps=2, method="fixmatch")

    def count(name):
        def hook(model, inputs, outputs):
            seen[name] += len(outputs.logits) * (not trainer.student_trains)

        return hook

    trainer.model.register_forward_hook(count("student"))
    trainer.teacher.model.register_forward_hook(count("teacher"))
    evaluate, trainer.student_trains = trainer.evaluate, True

    def watched(*arguments, **options):
        trainer.student_trains = False
        scores = evaluate(*arguments, **options)
        trainer.student_trains = True
        return scores

    monkeypatch.setattr(trainer, "evaluate", watched)
    trainer.eval_dataset = rows()
    trainer.args.eval_strategy, trainer.args.eval_steps = IntervalStrategy.STEPS, 2
    trainer.train()
    assert seen == {"student": 6, "teacher": 6}
    assert len(list((tmp_path / "events").iterdir())) == 1
    assert (tmp_path / "run" / "pseudo_labels" / "step-000002.png").exists()


def test_pictures_leave_the_training_as_it_is(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    with_pictures, without = trained(tmp_path / "a", "tensorboard"), trained(tmp_path / "b", "none")
    for one, other in zip(with_pictures.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("kind", "field"), [(WandbCallback, "_wandb"), (TrackioCallback, "_trackio")])
def test_other_trackers_are_told_in_their_own_words(kind, field):
    logged = []
    module = SimpleNamespace(Image=lambda picture: ("image", picture), log=logged.append)
    tracker = kind.__new__(kind)
    setattr(tracker, field, module)
    send_pictures(tracker, {"pseudo_labels": "a picture"}, step=7)
    assert logged == [{"pseudo_labels": ("image", "a picture"), "train/global_step": 7}]


def test_a_trainer_has_the_callback_once(tmp_path):
    callbacks = tiny_trainer(str(tmp_path)).callback_handler.callbacks
    assert sum(isinstance(callback, EvaluationPictures) for callback in callbacks) == 1
