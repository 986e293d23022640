"""The report's pictures as data URIs: predictions side by side (the paper's Fig. 4), the worst images, and
pseudo-labels over training. Plain pictures of masks are drawn in `pictures`."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pos_hf.errors import first_sentence
from pos_hf.files import damaged
from pos_hf.reporting.intervals import mean_iou, worst_images
from pos_hf.reporting.pictures import folder_name, overlay, picture_colours, tint
from pos_hf.run_folder import WORST, Run
from pos_hf.text import one_line
from pos_hf.values import IGNORE_INDEX

EXAMPLES_SHOWN = 6
WORST_SHOWN = 4
"""Of one run or two; half as many of each when there are more."""
STEPS_SHOWN = 6
PICTURE_SIDE = 320
"""Longest side of an embedded picture in pixels."""
FIRST_RIGHT, SECOND_RIGHT, BOTH_WRONG = (0x2F, 0x6F, 0xAB), (0xC8, 0x61, 0x1A), (0x55, 0x58, 0x5E)
WRONG = (0xC4, 0x2B, 0x2B)

Pictures = list[tuple[str, str]]
"""Title and data URI of each picture, in order."""
Stored = tuple[Image.Image, Image.Image, Image.Image]
"""Image, truth and prediction of one size."""


@dataclass(frozen=True)
class Example:
    """One test image with its predictions."""

    name: str
    pictures: Pictures


@dataclass(frozen=True)
class Worst:
    """One badly predicted test image of a run."""

    name: str
    values: list[float | None]
    """The image's own mIoU under each run of the report."""
    pictures: Pictures


def examples(runs: Sequence[Run]) -> list[Example]:
    """The first examples that every run stored, at one size.

    Raises:
        InputError: A stored picture is damaged.
    """
    shared = [name for name in runs[0].examples if all(name in run.examples for run in runs)]
    shown = []
    for name in shared[:EXAMPLES_SHOWN]:
        stored = [stored_example(run.examples[name]) for run in runs]
        if len({truth.size for _, truth, _ in stored}) == 1:  # runs on other data may use the same names
            shown.append(Example(one_line(name), _compared(runs, stored)))
    return shown


def worst(runs: Sequence[Run]) -> list[list[Worst]]:
    """For each run its images of lowest own mIoU, as far as their pictures were stored.

    Raises:
        InputError: A stored picture is damaged.
    """
    own = [
        dict(zip(run.image_ids, mean_iou(run.image_areas).tolist(), strict=True))
        if run.image_areas is not None
        else {}
        for run in runs
    ]
    count = WORST_SHOWN if len(runs) <= 2 else WORST_SHOWN // 2
    galleries = []
    for run in runs:
        indices = [] if run.image_areas is None else worst_images(run.image_areas, count)
        folders = {run.image_ids[i]: run.folder / WORST / folder_name(run.image_ids[i]) for i in indices}
        galleries.append(
            [
                Worst(name, [values.get(name) for values in own], _mistakes(folder))
                for name, folder in folders.items()
                if folder.exists()
            ]
        )
    return galleries


def pseudo_label_strip(run: Run) -> Pictures:
    """Image and truth, then pseudo-labels and confidence at evaluations spread evenly over training.

    Raises:
        InputError: A stored picture is damaged.
    """
    steps = list(run.pseudo_labels)
    if not steps:
        return []
    spread = np.linspace(0, len(steps) - 1, min(len(steps), STEPS_SHOWN)).round().astype(int)
    shown = {steps[i]: _read(run.pseudo_labels[steps[i]]) for i in spread}
    first = next(iter(shown.values()))
    for step, picture in shown.items():
        if picture.size != first.size or picture.width < 2:
            raise damaged(run.pseudo_labels[step], f"it is of {picture.width} x {picture.height} pixels")
    halfway, height = first.width // 2, first.height
    strip = [("image · truth", data_uri(first.crop((0, 0, halfway, height))))]
    for step, picture in shown.items():
        strip.append((f"step {step}", data_uri(picture.crop((halfway, 0, picture.width, height)))))
    return strip


def legend(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Class name, CSS colour of its outline and of its tint, from the palette of the example pictures."""
    names = list(runs[0].class_iou)
    for folder in runs[0].examples.values():
        colours = picture_colours(stored_example(folder)[1])
        css = "#{:02x}{:02x}{:02x}".format
        return [(name, css(*colours[i]), css(*tint(colours[i]))) for i, name in enumerate(names[:256])]
    return []


def _compared(runs: Sequence[Run], stored: Sequence[Stored]) -> Pictures:
    image, truth, _ = stored[0]
    predictions = [prediction for *_, prediction in stored]
    pictures = [("image", image), ("ground truth", _overlay(image, truth))]
    pictures += [(run.name, _overlay(image, mask)) for run, mask in zip(runs, predictions, strict=True)]
    if len(runs) == 2:
        right = [np.asarray(mask) == np.asarray(truth) for mask in predictions]
        differ = np.asarray(predictions[0]) != np.asarray(predictions[1])
        colours = {BOTH_WRONG: differ, FIRST_RIGHT: differ & right[0], SECOND_RIGHT: differ & right[1]}
        pictures.append(("who is right", _marked(image, truth, colours)))
    return [(title, data_uri(picture)) for title, picture in pictures]


def _mistakes(folder: Path) -> Pictures:
    image, truth, prediction = stored_example(folder)
    pictures = [
        ("image", image),
        ("ground truth", _overlay(image, truth)),
        ("prediction", _overlay(image, prediction)),
        ("wrong pixels", _marked(image, truth, {WRONG: np.asarray(prediction) != np.asarray(truth)})),
    ]
    return [(title, data_uri(picture)) for title, picture in pictures]


def stored_example(folder: Path) -> Stored:
    """Image, truth and prediction as `write_examples` stored them."""
    image, *masks = (_read(folder / name) for name in ("image.jpg", "truth.png", "prediction.png"))
    for mask, name in zip(masks, ("truth.png", "prediction.png"), strict=True):
        if mask.mode != "P" or mask.size != image.size:
            raise damaged(folder / name, f"it is no mask of {image.width} x {image.height} pixels")
    return image, masks[0], masks[1]


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as picture:
            return picture.copy()
    except Exception as error:  # a damaged picture fails in any part of Pillow
        raise damaged(file, first_sentence(error)) from error


def _overlay(image: Image.Image, mask: Image.Image) -> Image.Image:
    return overlay(image, np.asarray(mask), picture_colours(mask))


def _marked(
    image: Image.Image, truth: Image.Image, colours: dict[tuple[int, int, int], np.ndarray]
) -> Image.Image:
    """A pale image whose labeled pixels have the last colour that marks them."""
    canvas = np.asarray(image.convert("L").convert("RGB")) // 3 + 165
    labeled = np.asarray(truth) != IGNORE_INDEX
    for colour, marked in colours.items():
        canvas[marked & labeled] = colour
    return Image.fromarray(canvas.astype(np.uint8))


def data_uri(picture: Image.Image) -> str:
    """A picture as a page holds it, JPEG in base64, about as large as it is shown."""
    # small pictures are enlarged by a whole number, which keeps their pixels square
    scale = PICTURE_SIDE // max(picture.size) or PICTURE_SIDE / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    file = BytesIO()
    picture.resize(size, resample).save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
