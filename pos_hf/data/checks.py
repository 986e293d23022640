"""Looks for everything that is wrong or doubtful in a dataset, and says how to mend it. Changes nothing."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm import tqdm

from pos_hf.data.arguments import DataArguments
from pos_hf.data.decoding import DEEP_MODES, RowDecoder, Stored, read_array, read_picture
from pos_hf.data.duplicates import fingerprint, near_duplicates
from pos_hf.data.folders import orphan_masks
from pos_hf.data.loading import load_roles
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.data.validation import mask_name, require_known_ids, require_same_size
from pos_hf.errors import InputError

FEW_PIXELS = 0.05  # a mask with a smaller share of labeled pixels is reported


class Finding(NamedTuple):
    """One thing found.

    An `error` stops training, a `warning` probably spoils it, a `note` is only worth knowing. `remedy` is a
    line for the config, where one helps.
    """

    severity: Literal["error", "warning", "note"]
    role: str
    where: str
    problem: str
    remedy: str = ""


@dataclass
class DataReport:
    """What `check_data` saw.

    Args:
        findings: In the order they were met.
        label_counts: Labeled pixels of each class by role, int64 [num_classes].
        num_rows: Images of each role.
        data: The data, or None where it could not even be listed.
    """

    findings: list[Finding] = field(default_factory=list)
    label_counts: dict[str, np.ndarray] = field(default_factory=dict)
    num_rows: dict[str, int] = field(default_factory=dict)
    data: SegmentationData | None = None

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)


def check_data(args: DataArguments) -> DataReport:
    """Read every image and mask of a dataset and report what is wrong; never raises for bad data."""
    report = DataReport()
    try:
        data = report.data = load_roles(args)
    except InputError as error:
        report.findings.append(Finding("error", "all", args.dataset, str(error)))
        return report
    if args.dataset != "shapes" and args.dataset_format == "folders":
        report.findings += [
            Finding("warning", "labeled", mask, "is a mask without an image: is its name misspelt?")
            for mask in orphan_masks(args)
        ]
    fingerprints = {}
    for role, rows in {"unlabeled": data.unlabeled, **data.masked_roles}.items():
        report.num_rows[role] = len(rows)
        checked = _RoleChecks(role, data.num_classes)
        fingerprints[role] = checked.read(rows)
        report.findings += [*checked.findings, *checked.conclusions()]
        if "mask" in rows.column_names:
            report.label_counts[role] = checked.id_counts[: data.num_classes]
    report.findings += _absent_classes(report)
    report.findings += _leaks(fingerprints)
    return report


class _RoleChecks:
    """Goes through the rows of one role and remembers what only shows over all of them."""

    def __init__(self, role: str, num_classes: int) -> None:
        self.role = role
        self.num_classes = num_classes
        self.findings: list[Finding] = []
        self.modes: dict[str, list[str]] = defaultdict(list)
        self.id_counts = np.zeros(256, np.int64)
        self.unknown_ids: list[Finding] = []
        # by number of channels: pixels, and each channel's sum and sum of squares
        self.moments: dict[int, np.ndarray] = {}

    def read(self, rows: Dataset) -> dict[str, np.ndarray]:
        """Check every row.

        Returns:
            The fingerprints of the readable images, by their names.
        """
        decoder = rows.format["format_kwargs"]["transform"]
        fingerprints = {}
        for row in tqdm(
            rows.with_format(None), desc=f"reading {self.role}", unit="image", delay=1, leave=False
        ):
            name = row["image"]["path"] or row["id"]
            image = self._image(row["image"], decoder, name)
            if image is not None:
                fingerprints[name] = fingerprint(image)
                self._measure(np.asarray(image))
            if "mask" in row:
                self._mask(row, decoder, image)
        return fingerprints

    def _add(self, severity: Literal["error", "warning", "note"], where: str, problem: str) -> None:
        self.findings.append(Finding(severity, self.role, where, problem))

    def _image(self, stored: Stored, decoder: RowDecoder, name: str) -> Any:
        try:
            if not name.endswith(".npy"):
                self._image_mode(stored, name)
            return decoder.image(stored)
        except InputError as error:
            remedy = _range_line(stored, name) if "image_range" in str(error) else ""
            self.findings.append(Finding("error", self.role, name, str(error), remedy))
            return None

    def _image_mode(self, stored: Stored, name: str) -> None:
        picture = read_picture(stored)
        self.modes[picture.mode].append(name)
        source = stored["path"] if stored["bytes"] is None else None
        if source is not None and _is_turned(source):
            self._add(
                "warning", name, "is turned by its EXIF tag: its mask must be drawn for the turned image"
            )

    def _measure(self, image: np.ndarray) -> None:
        values = image[::4, ::4].reshape(-1, image.shape[-1]) / 255
        moments = np.stack([np.full(values.shape[1], len(values)), values.sum(0), (values**2).sum(0)])
        self.moments[values.shape[1]] = self.moments.get(values.shape[1], 0) + moments

    def _mask(self, row: dict[str, Any], decoder: RowDecoder, image: Any) -> None:
        name = mask_name(row)
        try:
            mask = decoder.mask(row["mask"])
        except InputError as error:
            remedy = _palette_line(row["mask"]) if "painted in colours" in str(error) else ""
            self.findings.append(Finding("error", self.role, name, str(error), remedy))
            return
        if name.lower().endswith((".jpg", ".jpeg")):
            self._add("warning", name, "is a JPEG, which blurs class ids: save masks as PNG")
        if read_picture(row["mask"]).mode in DEEP_MODES:
            self._add("note", name, "has 16 bits; 8 are enough for class ids")
        counts = np.bincount(np.asarray(mask).ravel(), minlength=256)
        self.id_counts += counts
        if counts[:255].sum() < FEW_PIXELS * counts.sum():
            self._add("warning", name, f"is ignored in {counts[255] / counts.sum():.0%} of its pixels")
        try:
            require_known_ids(counts, self.num_classes, name)
        except InputError as error:
            self.unknown_ids.append(Finding("error", self.role, name, str(error)))
        try:
            if image is not None:
                require_same_size(image, mask, name)
        except InputError as error:
            self._add("error", name, str(error))

    def conclusions(self) -> Iterator[Finding]:
        """What only all rows together show: ids meant otherwise, mixed kinds of images."""
        present = set(np.flatnonzero(self.id_counts).tolist())
        if present == {0, 255}:
            yield Finding(
                "error",
                self.role,
                "all masks",
                "hold only 0 and 255, and 255 means ignored: nothing but class 0 is labeled",
                'mask_values: {"255": 1}',
            )
        if 0 not in present and self.num_classes in present and max(present - {255}) == self.num_classes:
            yield Finding(
                "error",
                self.role,
                "all masks",
                f"count classes from 1 to {self.num_classes} instead of from 0",
                "reduce_labels: true",
            )
        else:
            yield from self.unknown_ids
        for channels, (count, total, squares) in self.moments.items():
            mean = total / count
            std = np.sqrt(squares / count - mean**2)
            if channels != 3:
                yield Finding(
                    "note",
                    self.role,
                    "all images",
                    f"have {channels} channels, which ImageNet's statistics do not fit",
                    f"image_mean: {mean.round(4).tolist()}\nimage_std: {std.round(4).tolist()}",
                )
        if len(self.moments) > 1:
            yield Finding(
                "error", self.role, "all images", f"have {sorted(self.moments)} channels, not one number"
            )
        for mode, names in self.modes.items():
            if mode in _MODE_NOTES:
                severity, text = _MODE_NOTES[mode]
                more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
                yield Finding(severity, self.role, f"{names[0]}{more}", text)


_MODE_NOTES: dict[str, tuple[Literal["warning", "note"], str]] = {
    "L": ("note", "is grayscale: it is read as three equal channels"),
    "1": ("note", "is black and white: it is read as three equal channels"),
    "RGBA": ("note", "has transparency, which is dropped"),
    "LA": ("note", "has transparency, which is dropped"),
    "CMYK": ("warning", "is CMYK, made for print: its colours are converted roughly; save it as RGB"),
}


def _is_turned(path: str) -> bool:
    with Image.open(path) as picture:
        return picture.getexif().get(0x0112, 1) != 1  # the orientation tag; 1 is upright


def _range_line(stored: Stored, name: str) -> str:
    values = read_array(name) if name.endswith(".npy") else np.asarray(read_picture(stored))
    low, high = np.percentile(values, [0.5, 99.5])
    return f"image_range: [{low:.4g}, {high:.4g}]  # 99 % of this image's values; look at more of them"


def _palette_line(stored: Stored) -> str:
    colors, counts = np.unique(
        np.asarray(read_picture(stored).convert("RGB")).reshape(-1, 3), axis=0, return_counts=True
    )
    if len(colors) > 255:
        return ""
    listed = ", ".join('"#{:02x}{:02x}{:02x}"'.format(*color) for color in colors[np.argsort(-counts)])
    return f"mask_colors: [{listed}]  # bring into the order of your class ids"


def _absent_classes(report: DataReport) -> Iterator[Finding]:
    assert report.data is not None
    for role, counts in report.label_counts.items():
        absent = [name for id, name in report.data.id2label.items() if counts[id] == 0]
        if absent:
            severity: Literal["warning", "note"] = "warning" if role == "labeled" else "note"
            yield Finding(severity, role, "all masks", f"no pixel is labeled {', '.join(absent)}")


def _leaks(fingerprints: dict[str, dict[str, np.ndarray]]) -> Iterator[Finding]:
    training = fingerprints["unlabeled"] | fingerprints["labeled"]
    for role in ("selection", "test"):
        for name, twin in near_duplicates(fingerprints.get(role, {}), training):
            yield Finding(
                "warning", role, name, f"looks like {twin}, which is trained on: scores will be too good"
            )
