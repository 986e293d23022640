"""What must hold before training, the same for `pos-hf check-data` and for every run. Repairs nothing."""

import copy
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from pos_hf.data.decoding import RowDecoder
from pos_hf.data.files import Stored
from pos_hf.data.masks import mask_name, require_known_ids, require_same_size, unknown_ids
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.errors import FileInputError, InputError
from pos_hf.values import IGNORE_INDEX
from pos_hf.workers import outlive_sigterm

logger = logging.getLogger(__name__)
PART = 4  # rows that one process checks at a time
MANY_IDS = 16  # more values without a class are one finding, not one for each mask

Severity = Literal["error", "warning", "note"]
Decoded = Image.Image | np.ndarray


class Finding(NamedTuple):
    """One thing found.

    An `error` stops training, a `warning` probably spoils it, a `note` is only worth knowing. `where` and
    `problem` make a sentence. `remedy` is a line for the config, where one helps.
    """

    severity: Severity
    role: str
    where: str
    problem: str
    remedy: str = ""
    error: InputError | None = None
    """What a decoder said, if it is from one."""

    def sentence(self) -> str:
        """The finding alone: what and where, and what to do."""
        if self.error is not None:
            return str(self.error)
        where = f"{self.where} ({self.role})" if self.where.startswith("all ") else self.where
        remedy = f": set `{'` and `'.join(self.remedy.splitlines())}` in a config" if self.remedy else ""
        return f"{where} {self.problem}{remedy}"


def validate(data: SegmentationData, skip_unreadable: bool = False, for_training: bool = True) -> None:
    """Read every mask and its image once; a progress bar appears when that takes long.

    What probably spoils the masks of a role is logged.

    Args:
        data: Of any source.
        skip_unreadable: Labeled files that cannot be read are passed over, as training will do.
        for_training: The labels must teach something, more than one class; scores may be taken of one.

    Raises:
        InputError: Says the first thing that stops training; `check_data` would list all.
    """
    for role, rows in data.masked_roles.items():
        is_trained_on = for_training and role == "labeled"
        checks = RoleChecks(role, data.id2label, is_trained_on, skip_unreadable and is_trained_on)
        checks.read(rows)
        conclusions = [*checks.conclusions()]
        _stop_at_errors([*checks.findings, *conclusions])
        for finding in conclusions:
            logger.warning(finding.sentence())
    _stop_at_errors(channel_findings(data))


def _stop_at_errors(findings: Iterable[Finding]) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more errors: `pos-hf check-data` lists them)"
        raise InputError(errors[0].sentence() + (more if len(errors) > 1 else ""))


def channel_findings(data: SegmentationData) -> Iterator[Finding]:
    """Images with another number of channels than the first labeled one, the first of each role."""
    first = None
    for role, rows in {**data.masked_roles, "unlabeled": data.unlabeled}.items():
        decoder = rows.format["format_kwargs"]["transform"]
        for stored in _images_to_count(rows):
            try:
                channels = decoder.count_channels(stored)
            except InputError:
                continue  # found where images are read
            name = stored["path"] or "a stored picture"
            first = first or (channels, name)
            if channels != first[0]:
                problem = (
                    f"has {channels} channels, but {first[1]} has {first[0]}: give all images one number"
                )
                yield Finding("error", role, name, problem)
                break


def _images_to_count(rows: Dataset) -> list[Stored]:
    images = rows.with_format(None).select_columns("image")
    if len(images) == 0:
        return []
    # a dataset that holds the bytes themselves holds pictures: one tells for all
    return images["image"][: 1 if images[0]["image"]["bytes"] is not None else None]


class RoleChecks:
    """Goes through the rows of one role and remembers what only shows over all of them.

    Args:
        role: Its name.
        id2label: The classes.
        must_teach: The masks must show more than one class.
        skip_unreadable: A file that cannot be read is a warning.
    """

    def __init__(
        self, role: str, id2label: dict[int, str], must_teach: bool = False, skip_unreadable: bool = False
    ) -> None:
        self.role = role
        self.must_teach = must_teach
        self.id2label = id2label
        self.skip_unreadable = skip_unreadable
        self.findings: list[Finding] = []
        self.id_counts = np.zeros(256, np.int64)
        self.num_readable = 0
        self._unknown: dict[str, np.ndarray] = {}  # pixels by id of the masks that have ids without a class
        self._as_stored = True  # no option changes the values of masks

    def read(self, rows: Dataset, num_workers: int = 0) -> None:
        """Check every row, in parts; what comes out does not depend on who checks which.

        Args:
            rows: Of the role.
            num_workers: Processes that share the rows; 0 checks them in this one.
        """
        decoder = rows.format["format_kwargs"]["transform"]
        self._as_stored = not (
            decoder.mask_values
            or decoder.mask_colors
            or decoder.reduce_labels
            or decoder.mask_threshold is not None
        )
        parts = _Parts(copy.deepcopy(self), rows.with_format(None), decoder)
        loader = DataLoader(
            parts,
            batch_size=None,
            num_workers=num_workers if len(parts) > num_workers else 0,
            worker_init_fn=outlive_sigterm,
            generator=torch.Generator(),  # or the user's random numbers would move on
        )
        with tqdm(
            total=len(rows), desc=f"checking {self.role}", unit="image", delay=2, leave=False
        ) as progress:
            for num_rows, part in loader:
                self.add(part)
                progress.update(num_rows)

    def read_row(self, row: dict[str, Any], decoder: RowDecoder) -> None:
        """Check one row."""
        image = self.read_image(row, decoder)
        mask = self.read_mask(row, decoder) if "mask" in row else None
        if image is not None and mask is not None:
            name = mask_name(row)
            self.attempt(name, row["mask"], partial(require_same_size, image, mask, name))
            self.look_at_pair(image, mask)
        self.num_readable += image is not None and (mask is not None or "mask" not in row)

    def add(self, later: Self) -> None:
        """Take over what the same checks found in the rows that follow."""
        self.findings += later.findings
        self.id_counts += later.id_counts
        self.num_readable += later.num_readable
        self._unknown |= later._unknown

    def look_at_pair(self, image: Decoded, mask: Image.Image) -> None:
        """Measure what image and mask show together: nothing here."""

    def read_image(self, row: dict[str, Any], decoder: RowDecoder) -> Decoded | None:
        """Decode a row's image; None, and a finding, where that fails."""
        return self.attempt(image_name(row), row["image"], partial(decoder.image, row["image"]))

    def read_mask(self, row: dict[str, Any], decoder: RowDecoder) -> Image.Image | None:
        """Decode a row's mask and count its ids; None, and a finding, where that fails."""
        mask = self.attempt(mask_name(row), row["mask"], partial(decoder.mask, row["mask"]))
        if mask is not None:
            counts = np.array(mask.histogram())
            self.id_counts += counts
            if unknown_ids(counts, len(self.id2label)):
                self._unknown[mask_name(row)] = counts
        return mask

    def attempt(self, name: str, stored: Stored, read: Callable[[], Any]) -> Any:
        """What `read` returns; None, and a finding, where it fails."""
        try:
            return read()
        except InputError as error:
            self._add_error(name, error, self.remedy(error, stored))
            return None

    def remedy(self, error: InputError, stored: Stored) -> str:
        """A line of the config that mends what a decoder refuses: none here."""
        return ""

    def _add_error(self, name: str, error: InputError, remedy: str = "") -> None:
        if not isinstance(error, FileInputError):
            error = FileInputError(name, str(error).removeprefix(name).strip())
        if self.skip_unreadable and error.cause == "unreadable":
            problem = f"{error.problem} (training skips it)"
            self.findings.append(Finding("warning", self.role, name, problem))
        else:
            self.findings.append(Finding("error", self.role, name, error.problem, remedy, error))

    def conclusions(self) -> Iterator[Finding]:
        """What only all rows together show: masks that teach nothing, ids meant otherwise."""
        num_classes, present = len(self.id2label), set(np.flatnonzero(self.id_counts).tolist())
        if self.skip_unreadable and self.num_readable == 0:
            yield Finding("error", self.role, "all images", "cannot be read: replace them")
        if present == {IGNORE_INDEX}:
            yield Finding("error", self.role, "all masks", "are ignored in all of their pixels: label some")
        elif num_classes == 1 and self.must_teach:
            yield self._one_class_named(present)
        elif present == {0, IGNORE_INDEX} and num_classes > 1 and self._as_stored:
            yield Finding(
                # a few test images may show nothing else
                "error" if self.role == "labeled" else "warning",
                self.role,
                "all masks",
                "hold only 0 and 255 (ignored), so that nothing but class 0 is labeled",
                'mask_values: {"255": 1}',
            )
        elif self.must_teach and len(present - {IGNORE_INDEX}) == 1:
            (shown,) = present - {IGNORE_INDEX}
            name = self.id2label.get(shown, shown)
            problem = f"show a single class ({name}), which teaches nothing: label pixels of another one too"
            yield Finding("error", self.role, "all masks", problem)
        if 0 not in present and num_classes in present and max(present - {IGNORE_INDEX}) == num_classes:
            problem = f"count classes from 1 to {num_classes} instead of from 0"
            yield Finding("error", self.role, "all masks", problem, "reduce_labels: true")
        else:
            yield from self._ids_without_class()

    def _one_class_named(self, present: set[int]) -> Finding:
        (name,) = self.id2label.values()
        names = ["background", "object" if name == "background" else name]
        remedy = f"class_names: {json.dumps(names)}"
        if present == {0, IGNORE_INDEX} and self._as_stored:
            remedy += '\nmask_values: {"255": 1}'
        return Finding(
            "error",
            self.role,
            "all masks",
            f"can show one class alone ({name}), which teaches nothing: name what surrounds it as well",
            remedy,
        )

    def threshold_line(self) -> str:
        """The line that makes binary masks of smoothed or blurred ones."""
        return "mask_threshold: 128" if self._as_stored and len(self.id2label) == 2 else ""

    def _ids_without_class(self) -> Iterator[Finding]:
        num_classes = len(self.id2label)
        if num_classes == 1 and self.must_teach:
            return  # the one finding about the classes says it
        unknown = unknown_ids(self.id_counts, num_classes)
        if len(unknown) > MANY_IDS:
            name, *others = self._unknown
            also = f", and {len(others)} other masks such values" if others else ""
            yield Finding(
                "error",
                self.role,
                name,
                f"holds {len(unknown_ids(self._unknown[name], num_classes))} values without a class{also}: "
                "either edges are smoothed (draw and resize masks without it, and save them as PNG), or "
                "class names are missing",
                self.threshold_line(),
            )
            return
        for name, counts in self._unknown.items():
            try:
                require_known_ids(counts, num_classes, name)
            except FileInputError as error:
                yield Finding("error", self.role, name, error.problem, error=error)


class _Parts(torch.utils.data.Dataset[tuple[int, RoleChecks]]):
    """Some rows after the other, checked: how many, and what was found in them."""

    def __init__(self, checks: RoleChecks, rows: Dataset, decoder: RowDecoder) -> None:
        self.checks, self.rows, self.decoder = checks, rows, decoder

    def __len__(self) -> int:
        return -(-len(self.rows) // PART)

    def __getitem__(self, index: int) -> tuple[int, RoleChecks]:
        if index >= len(self):
            raise IndexError(index)
        checks = copy.deepcopy(self.checks)
        rows = self.rows.select(range(index * PART, min((index + 1) * PART, len(self.rows))))
        for row in rows:
            checks.read_row(row, self.decoder)
        return len(rows), checks


def image_name(stored_row: dict[str, Any]) -> str:
    """The image's path, or its row's id where images are stored inside the dataset."""
    return stored_row["image"]["path"] or str(stored_row["id"])
