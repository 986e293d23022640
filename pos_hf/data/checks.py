"""Looks for everything that is wrong or doubtful in a dataset, and says how to mend it. Changes nothing.

What stops a training is in validation.py; this adds what probably spoils one, and lines for the config.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from PIL import Image

from pos_hf.data.arguments import DataArguments
from pos_hf.data.class_colors import ClassColors
from pos_hf.data.decoding import NEAREST_COLOR, RowDecoder
from pos_hf.data.drawing import is_drawing
from pos_hf.data.duplicates import fingerprint, near_duplicates
from pos_hf.data.files import Stored, read_header, read_picture
from pos_hf.data.folders import orphan_masks
from pos_hf.data.images import DEEP_MODES, count_channels, is_picture, read_image
from pos_hf.data.loading import load_roles
from pos_hf.data.masks import is_matrix, mask_name
from pos_hf.data.recognition import resolve
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.data.validation import Decoded, Finding, RoleChecks, Severity, channel_findings, image_name
from pos_hf.errors import FileInputError, InputError
from pos_hf.values import IGNORE_INDEX

FEW_PIXELS = 0.05  # a mask with a smaller share of labeled pixels is reported
MAX_COLORS = 255
RARE_SHARE = 0.02
"""Of the labeled pixels; of a class below it a threshold seldom keeps a pseudo-label (measured on CamVid)."""

MODE_NOTES: dict[str, tuple[Severity, str]] = {
    "L": ("note", "is grayscale: it is read as three equal channels"),
    "1": ("note", "is black and white: it is read as three equal channels"),
    "RGBA": ("note", "has transparency, which is dropped"),
    "LA": ("note", "has transparency, which is dropped"),
    "CMYK": ("warning", "is CMYK, made for print: its colours are converted roughly; save it as RGB"),
}


@dataclass
class DataReport:
    """What `check_data` saw.

    Args:
        findings: In the order they were met.
        long_sides: Longer side of every readable image, in pixels.
        label_counts: Labeled pixels of each class by role, int64 [num_classes].
        num_rows: Images of each role.
        data: The data, or None where it could not even be listed.
        args: What the data were loaded by, `dataset_format` resolved.
    """

    findings: list[Finding] = field(default_factory=list)
    label_counts: dict[str, np.ndarray] = field(default_factory=dict)
    long_sides: list[int] = field(default_factory=list)
    num_rows: dict[str, int] = field(default_factory=dict)
    data: SegmentationData | None = None
    args: DataArguments | None = None

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)


def check_data(
    args: DataArguments,
    needs_unlabeled: bool = True,
    adjusts_rare_classes: bool = False,
    num_workers: int = 0,
) -> DataReport:
    """Read every image and mask of a dataset and report what is wrong; never raises for bad data.

    Args:
        args: The dataset.
        needs_unlabeled: Training will look at unlabeled images.
        adjusts_rare_classes: Its method has `logit_adjustment`, which need not be proposed then.
        num_workers: Processes that share the reading; 0 reads in this one.
    """
    report = DataReport()
    try:
        report.args, assumptions = resolve(args)
        args = report.args
        data = load_roles(args, needs_unlabeled)
        data = report.data = replace(data, assumptions=(*assumptions, *data.assumptions))
    except InputError as error:
        report.findings.append(Finding("error", "all", args.dataset, str(error), error=error))
        return report
    if args.dataset != "shapes" and args.dataset_format == "folders":
        report.findings += [
            Finding("warning", "labeled", mask, "is a mask without an image: is its name misspelt?")
            for mask in orphan_masks(args)
        ]
    remedies = Remedies(data.num_classes)
    fingerprints = {}
    for role, rows in {"unlabeled": data.unlabeled, **data.masked_roles}.items():
        report.num_rows[role] = len(rows)
        skips = args.on_bad_sample == "skip" and role in ("labeled", "unlabeled")
        survey = RoleSurvey(role, data.id2label, role == "labeled", skips)
        survey.read(rows, num_workers)
        remedies.add(survey.remedies)
        fingerprints[role] = survey.fingerprints
        report.long_sides += survey.long_sides
        report.findings += [*survey.findings, *survey.conclusions()]
        if "mask" in rows.column_names:
            report.label_counts[role] = survey.id_counts[: data.num_classes]
    report.findings += channel_findings(data)
    report.findings += _absent_classes(report)
    if needs_unlabeled and not adjusts_rare_classes:
        report.findings += _rare_classes(report)
    report.findings += _leaks(fingerprints)
    lines = remedies.lines()
    report.findings = [
        finding._replace(remedy=lines.get(finding.remedy, finding.remedy)) for finding in report.findings
    ]
    return report


class Remedies:
    """Collects over all roles what one line of the config mends for all of them.

    A finding's remedy is the line's key until all roles are read.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.colors: Counter[tuple[int, ...]] = Counter()
        self.ranges: list[tuple[float, float]] = []
        self.moments: dict[int, np.ndarray] = {}
        """By number of channels: pixels, and each channel's sum and sum of squares, int64 [3, channels]."""
        self.deep_moments: dict[int, np.ndarray] = {}
        """Those of images that lack their `image_range`, in their own values, float64."""

    def add(self, later: "Remedies") -> None:
        """Take over what was collected in the rows that follow."""
        if len(self.colors) <= MAX_COLORS:  # beyond, no line will be printed anyway
            self.colors.update(later.colors)
        self.ranges += later.ranges
        for sums, added in ((self.moments, later.moments), (self.deep_moments, later.deep_moments)):
            for channels, moments in added.items():
                sums[channels] = sums.get(channels, 0) + moments

    def lines(self) -> dict[str, str]:
        """The lines by key; empty where no line helps."""
        lines = {"mask_colors": self._color_line(), "image_range": "", "image_mean": ""}
        if self.ranges:
            low, high = min(low for low, _ in self.ranges), max(high for _, high in self.ranges)
            high = high if high > low else low + 1
            lines["image_range"] = (
                f"image_range: [{low:.6g}, {high:.6g}]  # 99 % of the values of these images; look at more"
            )
        moments, black, white = self.moments, 0.0, 255.0
        if self.ranges and not moments:
            moments, black, white = self.deep_moments, low, high
        if len(moments) == 1:
            ((count, total, squares),) = moments.values()
            mean, variance = total / count, squares / count - (total / count) ** 2
            mean, std = (mean - black) / (white - black), np.sqrt(variance.clip(0)) / (white - black)
            std = std.clip(1e-3)
            lines["image_mean"] = f"image_mean: {mean.round(4).tolist()}\nimage_std: {std.round(4).tolist()}"
        return lines

    def _color_line(self) -> str:
        if not self.colors or len(self.colors) > self.num_classes:
            return ""  # a colour too many would be a class without a name
        listed = ", ".join('"#{:02x}{:02x}{:02x}"'.format(*color) for color, _ in self.colors.most_common())
        return f"mask_colors: [{listed}]  # bring into the order of your class ids"

    def add_colors(self, stored: Stored) -> None:
        """Count the colours of a painted mask."""
        pixels = np.asarray(read_picture(stored).convert("RGB")).reshape(-1, 3)
        colors, counts = np.unique(pixels, axis=0, return_counts=True)
        if len(self.colors) <= MAX_COLORS:
            self.colors.update(dict(zip(map(tuple, colors.tolist()), counts.tolist(), strict=True)))

    def add_range(self, stored: Stored, bands: Sequence[int]) -> None:
        """Widen the range to that of an image of many grey levels, and add its values to the statistics."""
        image: Any = np.ma.asarray(read_image(stored, bands))
        values = np.ma.masked_invalid(image if image.ndim == 3 else image[..., None])
        if values.count():
            low, high = np.percentile(values.compressed(), [0.5, 99.5])
            self.ranges.append((float(low), float(high)))
            self._add_moments(self.deep_moments, values, np.float64)

    def add_moments(self, image: np.ndarray) -> None:
        """Add an image's pixels to the statistics."""
        self._add_moments(self.moments, np.ma.asarray(image), np.int64)  # exact in any order

    def _add_moments(self, sums: dict[int, np.ndarray], image: np.ma.MaskedArray, kind: type) -> None:
        values: Any = image[::4, ::4].reshape(-1, image.shape[-1]).astype(kind)
        moments = np.stack([values.count(0), values.sum(0), (values**2).sum(0)])
        sums[values.shape[1]] = sums.get(values.shape[1], 0) + moments


class RoleSurvey(RoleChecks):
    """The checks of a role, what is doubtful in it, and what helps. Arguments as `RoleChecks`."""

    def __init__(
        self,
        role: str,
        id2label: dict[int, str],
        must_teach: bool,
        skip_unreadable: bool,
    ) -> None:
        super().__init__(role, id2label, must_teach, skip_unreadable)
        self.remedies = Remedies(len(id2label))
        self.fingerprints: dict[str, np.ndarray] = {}
        """Of the readable images, by name."""
        self.long_sides: list[int] = []
        self.colors = ClassColors(len(id2label))
        self._modes: dict[str, list[str]] = defaultdict(list)
        self._channels: set[int] = set()
        self._bands: tuple[int, ...] = ()

    def add(self, later: Self) -> None:
        """Take over what the same checks found in the rows that follow."""
        super().add(later)
        self.remedies.add(later.remedies)
        self.fingerprints |= later.fingerprints
        self.long_sides += later.long_sides
        self.colors.join(later.colors)
        self._channels |= later._channels
        for mode, names in later._modes.items():
            self._modes[mode] += names

    def read_image(self, row: dict[str, Any], decoder: RowDecoder) -> Decoded | None:
        """Decode a row's image, compare it and measure it."""
        self._bands = decoder.bands
        name, image = image_name(row), super().read_image(row, decoder)
        if image is not None:
            self.fingerprints[name] = fingerprint(image)
            self.long_sides.append(max(np.asarray(image).shape[:2]))
            self._channels.add(np.atleast_3d(np.asarray(image)).shape[-1])
            if self.role in ("labeled", "unlabeled"):
                self.remedies.add_moments(np.asarray(image))
            if is_picture(row["image"]):
                self._look_at_header(row["image"], name)
        return image

    def _look_at_header(self, stored: Stored, name: str) -> None:
        header = read_header(stored)
        self._modes[header.mode].append(name)
        if header.is_turned:
            self._add(
                "warning", name, "is turned by its EXIF tag: its mask must be drawn for the turned image"
            )

    def read_mask(self, row: dict[str, Any], decoder: RowDecoder) -> Image.Image | None:
        """Decode a row's mask and look whether it is one."""
        name, mask = mask_name(row), super().read_mask(row, decoder)
        if mask is None:
            return None
        if name.lower().endswith((".jpg", ".jpeg")):
            problem = "is a JPEG, which blurs class ids: save masks as PNG"
            self._add("warning", name, problem, self.threshold_line())
        has_header = not is_drawing(row["mask"]) and not is_matrix(row["mask"])
        if has_header and read_header(row["mask"]).mode in DEEP_MODES:
            self._add("note", name, "has 16 bits; 8 are enough for class ids")
        counts = np.array(mask.histogram())
        if counts[:IGNORE_INDEX].sum() < FEW_PIXELS * counts.sum():
            share = counts[IGNORE_INDEX] / counts.sum()
            self._add("warning", name, f"is ignored in {share:.0%} of its pixels")
        return mask

    def look_at_pair(self, image: Decoded, mask: Image.Image) -> None:
        """Count the colours of every class, where they are trained on."""
        if self.role == "labeled":
            self.colors.add(np.asarray(image), np.asarray(mask))

    def remedy(self, error: InputError, stored: Stored) -> str:
        """The key of the line that mends an error, for which the file is measured."""
        if isinstance(error, FileInputError) and error.cause == "painted":
            self.remedies.add_colors(stored)
            return "mask_colors"
        if isinstance(error, FileInputError) and error.cause == NEAREST_COLOR:
            return NEAREST_COLOR
        if isinstance(error, FileInputError) and error.cause == "pages":
            return "split_pages: true"
        if "image_range" in str(error):
            self.remedies.add_range(stored, self._bands)
            self._channels.add(count_channels(stored, self._bands))
            return "image_range"
        return ""

    def _add(self, severity: Severity, where: str, problem: str, remedy: str = "") -> None:
        self.findings.append(Finding(severity, self.role, where, problem, remedy))

    def conclusions(self) -> Iterator[Finding]:
        """What only all rows together show, kinds of images among it."""
        yield from super().conclusions()
        if line := self.colors.line():
            problem = (
                f"are told apart by colour alone in {self.colors.separability():.0%} of the pixels, classes "
                "weighed equally: strong views that change colour may change the class"
            )
            yield Finding("note", self.role, "all classes", problem, line)
        for channels in self._channels - {3}:
            problem = f"have {channels} channels, which ImageNet's statistics do not fit"
            yield Finding("note", self.role, "all images", problem, "image_mean")
        for mode, names in self._modes.items():
            if mode in MODE_NOTES:
                severity, text = MODE_NOTES[mode]
                more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
                yield Finding(severity, self.role, f"{names[0]}{more}", text)


def _absent_classes(report: DataReport) -> Iterator[Finding]:
    assert report.data is not None
    for role, counts in report.label_counts.items():
        absent = [name for id, name in report.data.id2label.items() if counts[id] == 0]
        if absent:
            severity: Severity = "warning" if role == "labeled" else "note"
            yield Finding(severity, role, "all masks", f"no pixel is labeled {', '.join(absent)}")


def _rare_classes(report: DataReport) -> Iterator[Finding]:
    assert report.data is not None
    if rare := rare_shares(report.label_counts["labeled"], report.data.id2label):
        yield Finding(
            "warning",
            "labeled",
            "all masks",
            f"{', '.join(rare)} of the labeled pixels: few pseudo-labels of so rare a class reach the "
            "threshold, and without an adjustment unlabeled images unlearn it",
            "method_options: {logit_adjustment: true}",
        )


def rare_shares(counts: np.ndarray, id2label: dict[int, str]) -> list[str]:
    """ "fence covers 0.9%" for each class that occurs in less than `RARE_SHARE` of the labeled pixels.

    Args:
        counts: Labeled pixels of each class, int64 [C].
        id2label: Their names.
    """
    shares = counts / max(counts.sum(), 1)
    return [f"{name} covers {shares[id]:.1%}" for id, name in id2label.items() if 0 < shares[id] < RARE_SHARE]


def _leaks(fingerprints: dict[str, dict[str, np.ndarray]]) -> Iterator[Finding]:
    training = fingerprints["unlabeled"] | fingerprints["labeled"]
    for role in ("selection", "test"):
        for name, twin in near_duplicates(fingerprints.get(role, {}), training):
            yield Finding(
                "warning", role, name, f"looks like {twin}, which is trained on: scores will be too good"
            )
