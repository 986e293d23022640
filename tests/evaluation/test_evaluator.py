"""The loop over images of several sizes, alone and in a distributed run."""

import json
import math
import multiprocessing
import subprocess
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator, debug_launcher
from datasets import concatenate_datasets
from PIL import Image
from transformers import DPTImageProcessor, MobileNetV2ImageProcessor

from pos_hf.data.decoding import STORED_IMAGE, RowDecoder
from pos_hf.errors import TrainingStopped
from pos_hf.evaluation import (
    Inference,
    evaluate_images,
    evaluator,
    keep_confident,
    predict_images,
)
from pos_hf.evaluation import inference as inference_module
from pos_hf.evaluation.evaluator import image_batches

DETAILS = {"detailed": True, "pseudo_labeler": partial(keep_confident, threshold=0.5)}


def counts_one_by_one(model, dataset, processor) -> np.ndarray:
    counts = np.zeros((5, 5), dtype=int)
    for row in dataset:
        pixel_values = processor(images=row["image"], return_tensors="pt")["pixel_values"]
        prediction = model(pixel_values).logits.argmax(1)[0].numpy()
        for p, y in zip(prediction.flat, np.asarray(row["mask"]).flat, strict=True):
            if y != 255:
                counts[y, p] += 1
    return counts


def test_batching_by_shape_changes_no_count(model, dataset, processor) -> None:
    expected = counts_one_by_one(model, dataset, processor)
    for batch_size in (1, 3, 8):
        evaluation = evaluate_images(model, dataset, processor, batch_size=batch_size)
        assert np.array_equal(evaluation.confusion.counts.numpy(), expected)


def test_every_picture_is_decoded_once(model, dataset, processor) -> None:
    decoded = []

    def count(batch):
        decoded.extend(batch["id"])
        return decoder(batch)

    decoder, rows = RowDecoder(), dataset.cast_column("image", STORED_IMAGE).cast_column("mask", STORED_IMAGE)
    evaluation = evaluate_images(model, rows.with_transform(count), processor)
    assert sorted(decoded) == sorted(evaluation.ids) and len(decoded) == 11


def test_a_signal_to_the_whole_job_leaves_the_workers_to_the_evaluation(model, dataset, processor) -> None:
    def signal_workers(*_: object) -> None:
        workers = [str(process.pid) for process in multiprocessing.active_children()]
        assert len(workers) == 2
        hook.remove()
        # from a process that is not theirs: torch's workers obey their parent in any case
        subprocess.run(["kill", "-TERM", *workers], check=True)

    hook = model.register_forward_pre_hook(signal_workers)
    rows = concatenate_datasets([dataset] * 4)  # more than what is prefetched
    evaluation = evaluate_images(model, rows, processor, num_workers=2)
    alone = evaluate_images(model, dataset, processor)
    assert torch.equal(evaluation.confusion.counts, 4 * alone.confusion.counts)


def test_each_image_keeps_its_own_areas(model, dataset, processor) -> None:
    evaluation = evaluate_images(model, dataset, processor)
    alone = evaluate_images(model, dataset.select([4]), processor)
    assert evaluation.ids == dataset["id"][:]
    assert torch.equal(evaluation.image_areas[4], alone.image_areas[0])
    assert torch.equal(evaluation.image_areas.sum(0)[0], evaluation.confusion.counts.diagonal()[:-1])


def test_training_mode_comes_back(model, dataset, processor) -> None:
    model.train()
    evaluate_images(model, dataset, processor)
    assert model.training


def test_evaluating_draws_no_random_number_that_training_would_miss(model, dataset, processor) -> None:
    before = torch.get_rng_state()
    evaluate_images(model, dataset, processor)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "processor",
    [
        MobileNetV2ImageProcessor(size={"shortest_edge": 60}, crop_size={"height": 60, "width": 60}),
        DPTImageProcessor(do_resize=False, do_pad=True, size_divisor=32),
    ],
    ids=["crops", "pads"],
)
def test_the_model_sees_the_whole_image_and_nothing_else(model, processor) -> None:
    thirds = np.zeros((60, 180, 3), np.uint8)
    for c in range(3):
        thirds[:, 60 * c : 60 * c + 60, c] = 255
    torch.nn.init.dirac_(model.classifier.weight)  # the class of a pixel is its brightest colour
    torch.nn.init.zeros_(model.classifier.bias)
    (prediction,) = predict_images(model, [Image.fromarray(thirds)], processor)
    assert np.array_equal(prediction, thirds.argmax(-1))


def test_a_threshold_measures_the_pseudo_labels_it_would_keep(model, dataset, processor) -> None:
    labeler = partial(keep_confident, threshold=0.6)
    scores = evaluate_images(model, dataset, processor, pseudo_labeler=labeler).scores()
    kept = right = total = 0
    for row in dataset:
        pixel_values = processor(images=row["image"], return_tensors="pt")["pixel_values"]
        confidence, prediction = model(pixel_values).logits.softmax(1)[0].max(0)
        labels = torch.tensor(np.asarray(row["mask"]), dtype=torch.int64)
        confident = (labels != 255) & (confidence >= 0.6)
        kept, right = kept + confident.sum(), right + (confident & (prediction == labels)).sum()
        total += (labels != 255).sum()
    assert scores["pseudo_labels"]["coverage"] == pytest.approx((kept / total).item())
    assert scores["pseudo_labels"]["precision"] == pytest.approx((right / kept).item())


def test_predictions_are_the_ones_that_evaluation_counts(model, dataset, processor) -> None:
    correct = sum(
        (prediction == np.asarray(mask)).sum()
        for prediction, mask in zip(
            predict_images(model, dataset["image"], processor, Inference(flip=True)),
            dataset["mask"],
            strict=True,
        )
    )
    evaluation = evaluate_images(model, dataset, processor, inference=Inference(flip=True))
    assert evaluation.confusion.counts.diagonal().sum() == correct


def test_saved_scores_are_json_with_null_for_an_absent_class(model, dataset, processor, tmp_path) -> None:
    model.classifier.bias.data[3] = -1e4  # the class that no mask holds is never predicted either
    evaluation = evaluate_images(model, dataset, processor)
    evaluation.save(tmp_path, {"inference": "native"})
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert math.isnan(evaluation.scores()["per_category_iou"]["class 3"])
    assert saved["per_category_iou"]["class 3"] is None
    assert saved["mean_iou"] == evaluation.scores()["mean_iou"]
    assert saved["images"] == 11 and saved["protocol"] == {"inference": "native"}
    with np.load(tmp_path / "per_image.npz") as per_image:
        assert per_image["areas"].shape == (11, 3, 4)


def evaluate_and_save(model, dataset, processor, folder) -> None:
    accelerator = Accelerator(cpu=True)
    evaluation = evaluate_images(model, dataset, processor, batch_size=2, accelerator=accelerator, **DETAILS)
    torch.save((evaluation.scores(), evaluation.image_areas), folder / f"{accelerator.process_index}.pt")


@pytest.mark.parametrize("num_processes", [2, 3])
def test_several_processes_give_the_scores_of_one_to_the_last_digit(
    model, dataset, processor, tmp_path, num_processes
) -> None:
    alone = evaluate_images(model, dataset, processor, **DETAILS)
    expected = alone.scores()
    calibration_error = expected.pop("expected_calibration_error")
    debug_launcher(evaluate_and_save, (model, dataset, processor, tmp_path), num_processes)
    for rank in range(num_processes):
        scores, image_areas = torch.load(tmp_path / f"{rank}.pt")
        # a convolution rounds by its batch, which a confidence shows and a prediction does not
        assert scores.pop("expected_calibration_error") == pytest.approx(calibration_error, abs=1e-6)
        assert str(scores) == str(expected)  # as text, where NaN equals NaN
        assert torch.equal(image_areas, alone.image_areas)


def test_strips_and_a_small_budget_of_waiting_bytes_change_no_count(
    model, dataset, processor, monkeypatch
) -> None:
    details = {"inference": Inference(window=7), **DETAILS}
    expected = evaluate_images(model, dataset, processor, **details)
    monkeypatch.setattr(inference_module, "STRIP_BYTES", 4000)
    monkeypatch.setattr(evaluator, "WAITING_BYTES", 5000)
    found = evaluate_images(model, dataset, processor, **details)
    for name in ("image_areas", "boundary"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert torch.equal(found.confusion.counts, expected.confusion.counts)
    assert torch.equal(found.kept.counts, expected.kept.counts)


def test_waiting_images_are_bounded_by_their_bytes(dataset, processor, monkeypatch) -> None:
    held = largest = 0
    monkeypatch.setattr(evaluator, "WAITING_BYTES", 6000)
    prepare = evaluator.prepare

    def counted(row, image_processor):
        nonlocal held, largest
        item = prepare(row, image_processor)
        assert item.pixels.dtype == item.labels.dtype == torch.uint8
        held += item.nbytes
        largest = max(largest, held)
        return item

    monkeypatch.setattr(evaluator, "prepare", counted)
    for _, batch in image_batches(dataset, processor, range(11), batch_size=8):
        held -= sum(item.nbytes for item in batch)
    assert held == 0 and largest < 6000 + 4 * 24 * 31


class TooLarge(torch.nn.Module):
    """Asks for more memory than there is, as a network does for a large image."""

    def forward(self, pixel_values):
        torch.empty(10**15)


def test_exhausted_memory_is_said_in_one_sentence_with_what_helps(model, dataset, processor) -> None:
    model.forward = TooLarge().forward
    with pytest.raises(TrainingStopped, match=r"1 of 24 x 20 pixels at once: .* with --window 512$"):
        next(predict_images(model, dataset["image"], processor))
    with pytest.raises(TrainingStopped, match=r"--window 32, or without --scales and --flip, or one image"):
        evaluate_images(model, dataset, processor, inference=Inference(window=64, flip=True))
