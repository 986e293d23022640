"""What every source returns: the roles of a dataset, its class names and colours. No loading."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from datasets import Dataset

from pos_hf.errors import InputError


@dataclass(frozen=True)
class SegmentationData:
    """Images and masks by role; a row's `image` is a PIL RGB image, its `mask` a PIL "L" image of class ids.

    Args:
        name: Short name for reports and model cards.
        labeled: Rows of `id`, `image`, `mask` to train on.
        unlabeled: Rows of `id`, `image` to train on.
        selection: Rows of `id`, `image`, `mask` to choose checkpoints and settings on, or None.
        test: Rows of `id`, `image`, `mask` that are only ever scored, or None.
        id2label: Class id -> name, ids 0 to C-1; 255 in a mask is ignored and has no name.
        palette: One RGB colour a class, 0 to 255, in the order of ids.
        assumptions: What was recognised and assumed, a sentence each.
    """

    name: str
    labeled: Dataset
    unlabeled: Dataset
    selection: Dataset | None
    test: Dataset | None
    id2label: dict[int, str]
    palette: list[list[int]]
    assumptions: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.id2label)

    @property
    def num_channels(self) -> int:
        """Channels of the images: 3 for pictures, more or fewer where they have other bands."""
        decoder = self.labeled.format["format_kwargs"]["transform"]
        for row in self.labeled.select_columns("image").with_format(None):
            with suppress(InputError):  # skipped in training, or refused by the checks
                return decoder.count_channels(row["image"])
        raise InputError(f"no labeled image of {self.name} can be read: replace them")

    @property
    def masked_roles(self) -> dict[str, Dataset]:
        """The roles that have masks, by name; absent ones left out."""
        roles = {"labeled": self.labeled, "selection": self.selection, "test": self.test}
        return {role: rows for role, rows in roles.items() if rows is not None}

    def split_hash(self) -> str:
        """Name the exact split in 12 hexadecimal digits: equal when every role holds the same ids."""
        digest = hashlib.sha256()
        for role, rows in (self.masked_roles | {"unlabeled": self.unlabeled}).items():
            digest.update("\n".join([role, *sorted(row_ids(rows)), ""]).encode())
        return digest.hexdigest()[:12]


def row_ids(rows: Dataset) -> list[str]:
    """The ids of all rows, in order, without decoding a picture: `rows["id"]` would decode every one."""
    return rows.with_format(None)["id"][:]


def voc_palette(num_colors: int) -> list[list[int]]:
    """Distinct colours for class ids (Pascal VOC's colormap: the bits of the id, dealt to R, G, B)."""
    palette = []
    for class_id in range(num_colors):
        color = [0, 0, 0]
        for bit in range(8):
            color[bit % 3] |= (class_id >> bit & 1) << (7 - bit // 3)
        palette.append(color)
    return palette
