"""The report's pictures, read back from the page's data URIs."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pos_hf.reporting import read_runs, write_examples
from pos_hf.reporting.gallery import (
    BOTH_WRONG,
    FIRST_RIGHT,
    SECOND_RIGHT,
    WRONG,
    examples,
    legend,
    pseudo_label_strip,
    worst,
)
from pos_hf.reporting.intervals import mean_iou
from pos_hf.reporting.pictures import tint

from .fake_run import NAMES, PALETTE

BLOCK = 16
TRUTH = [0, 1, 1, 1, 255]


def columns(ids: list[int]) -> np.ndarray:
    """A map of square blocks side by side."""
    return np.kron(np.array([ids], np.uint8), np.ones((BLOCK, BLOCK), np.uint8))


def block_colours(uri: str) -> list[tuple[int, ...]]:
    """The colour in the middle of each block of a picture."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")
    side = picture.height
    return [picture.getpixel((side * i + side // 2, side // 2)) for i in range(picture.width // side)]


def is_about(colour: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(colour, expected, strict=True)) < 12


def store(run: Path, kind: str, name: str, prediction: list[int]) -> None:
    row = {"id": name, "image": Image.new("RGB", (5 * BLOCK, BLOCK), (90,) * 3)}
    row["mask"] = Image.fromarray(columns(TRUTH))
    write_examples(run / kind, [row], [columns(prediction)], NAMES, PALETTE)


def test_fig_4_shows_where_two_runs_differ_and_which_of_them_is_right(make_run) -> None:
    first, second = make_run("first"), make_run("second")
    store(first, "examples", "a", [0, 1, 2, 3, 1])
    store(second, "examples", "a", [0, 2, 1, 4, 2])
    shown = next(example for example in examples(read_runs([first, second])) if example.name == "a")
    assert [title for title, _ in shown.pictures] == [
        "image",
        "ground truth",
        "first",
        "second",
        "who is right",
    ]
    same, first_right, second_right, neither, ignored = block_colours(shown.pictures[-1][1])
    pale = (90 // 3 + 165,) * 3
    assert is_about(same, pale) and is_about(ignored, pale)
    assert is_about(first_right, FIRST_RIGHT) and is_about(second_right, SECOND_RIGHT)
    assert is_about(neither, BOTH_WRONG)


def test_wrong_pixels_are_red_and_ignored_ones_are_not(make_run) -> None:
    run = make_run("run")
    name = worst(read_runs([run]))[0][0].name
    store(run, "worst", name, [0, 1, 2, 0, 1])
    (pictures,) = [image.pictures for image in worst(read_runs([run]))[0] if image.name == name]
    assert [is_about(colour, WRONG) for colour in block_colours(pictures[-1][1])] == [0, 0, 1, 1, 0]


def test_the_worst_images_of_each_run_come_in_order_with_every_runs_score(make_run) -> None:
    runs = read_runs([make_run("first", 1), make_run("second", 2)])
    for run, shown in zip(runs, worst(runs), strict=True):
        own = {name: mean_iou(areas) for name, areas in zip(run.image_ids, run.image_areas, strict=True)}
        assert [image.name for image in shown] == sorted(own, key=own.__getitem__)[:4]
        for image in shown:
            index = runs[0].image_ids.index(image.name)
            assert image.values == pytest.approx([float(mean_iou(run.image_areas[index])) for run in runs])


def test_the_strip_takes_the_evaluations_of_the_log_evenly_with_the_first_and_the_last(make_run) -> None:
    (run,) = read_runs([make_run("run", steps=600)])
    assert [title for title, _ in pseudo_label_strip(run)] == [
        "image · truth",
        *(f"step {step}" for step in (50, 150, 250, 400, 500, 600)),
    ]


def test_the_legend_has_the_colours_of_the_masks(make_run) -> None:
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in PALETTE]
    tints = ["#{:02x}{:02x}{:02x}".format(*tint(colour)) for colour in PALETTE]
    assert legend(read_runs([make_run("run")])) == list(zip(NAMES, colours, tints, strict=True))
