"""From a stored picture to what the package sees: uint8 images and one-channel masks. No augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage
from PIL import ImageColor

from pos_hf.data.arguments import DataArguments
from pos_hf.data.drawing import draw, is_drawing
from pos_hf.data.files import Stored
from pos_hf.data.geometry import Large, Part, Picture
from pos_hf.data.image_cache import kept
from pos_hf.data.images import (
    DEEP_MODES,
    RGB,
    count_channels,
    has_draft,
    has_parts,
    is_large,
    picture_size,
    read_draft,
    read_image,
    read_part,
)
from pos_hf.data.masks import mask_error, mask_name, mask_values, require_known_ids, require_same_size
from pos_hf.data.rasters import Box, raster_layout, read_raster, tiff_layout
from pos_hf.errors import InputError
from pos_hf.values import IGNORE_INDEX

STORED_IMAGE = Image(decode=False)
ROWS = 256
NEAREST_COLOR = "color_tolerance: 442"  # the largest distance there is
MOSTLY_NOISE = 0.1  # a smaller share of the pixels lies between classes' colours
PAINTED = {2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class RowDecoder:
    """Decodes a batch of rows (the transform of every `Dataset` of the package).

    A row's `image` becomes a PIL RGB image, or uint8 [H, W, C] where it has other than three channels; its
    `mask` becomes a PIL "L" image of class ids, 255 = ignore, also where the image says that it has no data.

    Args:
        mask_values: Class id of a mask value; values not named stay as they are.
        mask_colors: (R, G, B) of each class id, for masks painted in colours.
        color_tolerance: Distance up to which another colour is the nearest class's.
        reduce_labels: Masks count classes from 1, and 0 is ignored.
        mask_threshold: Values from here on are class 1, those below class 0.
        merged: New id of each of the 256 ids, where classes are merged or take a model's order.
        bands: Of the images, counted from 1; all of them by default.
        image_range: Values of deep (16-bit or float) images that become 0 and 255.
        num_classes: Ids from here on are refused, but 255; None takes any.
        num_channels: Channels that every image must have, 3 for pictures; None takes any.
        in_parts: Of large files give what decodes a part, where their format has any.
        cache: Folder where decoded pictures are kept; None keeps none.
    """

    mask_values: tuple[tuple[int, int], ...] = ()
    mask_colors: tuple[tuple[int, ...], ...] = ()
    color_tolerance: float = 0.0
    reduce_labels: bool = False
    mask_threshold: float | None = None
    merged: tuple[int, ...] = ()
    bands: tuple[int, ...] = ()
    image_range: tuple[float, float] | None = None
    num_classes: int | None = None
    num_channels: int | None = None
    in_parts: bool = field(default=False, repr=False)
    cache: Path | None = field(default=None, repr=False)  # the others' repr names a kept picture

    @classmethod
    def from_arguments(cls, args: DataArguments) -> "RowDecoder":
        assert not isinstance(args.mask_values, str)  # parsed on construction
        return cls(
            mask_values=tuple((int(old), new) for old, new in (args.mask_values or {}).items()),
            mask_colors=tuple(ImageColor.getrgb(color) for color in args.mask_colors or ()),
            color_tolerance=args.color_tolerance,
            reduce_labels=bool(args.reduce_labels),
            mask_threshold=args.mask_threshold,
            bands=tuple(args.bands or ()),
            image_range=None if args.image_range is None else (args.image_range[0], args.image_range[1]),
            cache=Path(args.image_cache) if args.image_cache else None,
        )

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Decode the pictures of rows.

        Raises:
            InputError: One cannot be decoded, or a mask fits neither its image nor the classes: files may
                change after they were checked.
        """
        decoded = dict(batch)
        if "image" in batch:
            read = [self._for_views(stored) for stored in batch["image"]]
            decoded["image"], gaps = [image for image, _ in read], [gaps for _, gaps in read]
        if "mask" in batch:
            decoded["mask"] = [self._mask_for_views(stored) for stored in batch["mask"]]
        for index, mask in enumerate(decoded.get("mask", [])):
            name = mask_name({column: batch[column][index] for column in batch})
            if "image" in decoded:
                require_same_size(decoded["image"][index], mask, name)
                if (empty := gaps[index]) is not None and not isinstance(mask, Large):
                    mask.paste(IGNORE_INDEX, mask=PILImage.fromarray(empty))
            if self.num_classes is not None and not isinstance(mask, Large):
                require_known_ids(np.array(mask.histogram()), self.num_classes, name)
        return decoded

    def image(self, stored: Stored) -> PILImage.Image | np.ndarray:
        """Decode an image.

        Raises:
            InputError: It cannot be read, is deep and `image_range` is not given, or has other channels.
        """
        return self.image_and_gaps(stored)[0]

    def image_and_gaps(self, stored: Stored) -> tuple[Picture, np.ndarray | None]:
        """`image`, and where it says that it has no data, bool [H, W]; None where it says nothing."""
        name = stored["path"] or "an image"
        self._check_channels(self.count_channels(stored), name)
        values = read_image(stored, self.bands)
        if isinstance(values, PILImage.Image):
            if values.mode in DEEP_MODES:
                values = PILImage.fromarray(self._to_bytes(np.asarray(values), name))
            return values.convert(RGB), None
        return self._decoded(values, name)

    def part(self, stored: Stored, box: Box) -> tuple[Picture, np.ndarray | None]:
        """`image_and_gaps` of a part, see `read_part`."""
        self._check_channels(self.count_channels(stored), stored["path"])
        return self._decoded(read_part(stored, box, self.bands), stored["path"])

    def _decoded(self, values: np.ndarray, name: str) -> tuple[Picture, np.ndarray | None]:
        gaps = np.asarray(np.ma.getmaskarray(values).all(-1)) if np.ma.is_masked(values) else None
        pixels = self._to_bytes(values, name)
        return PILImage.fromarray(pixels) if pixels.shape[2] == len(RGB) else pixels, gaps

    def _for_views(self, stored: Stored) -> tuple[Picture | Large, np.ndarray | None]:
        if not self.in_parts or not is_large(stored):
            return self._kept_image_and_gaps(stored)
        if has_parts(stored):

            def read(box: Box, _: float) -> Part:
                picture, gaps = self.part(stored, box)
                return Part(picture, box.left, box.top, gaps)

            return Large(picture_size(stored), read), None
        if has_draft(stored) and not self.bands and self.cache is None:

            def draft(_: Box, shrinkage: float) -> Part:
                picture, shrink = read_draft(stored, shrinkage)
                return Part(picture.convert(RGB), 0, 0, shrink=shrink)

            self._check_channels(len(RGB), stored["path"])
            return Large(picture_size(stored), draft), None
        return self._kept_image_and_gaps(stored)

    def _mask_for_views(self, stored: Stored) -> PILImage.Image | Large:
        layout = tiff_layout(stored) if self.in_parts and is_large(stored) else None
        if layout is None or layout.bands > 1 or not has_parts(stored):
            return self._kept_mask(stored)

        def read(box: Box, _: float) -> Part:
            values = np.ma.getdata(read_raster(stored["path"], box=box))[..., 0]
            mask = self._as_mask(values, stored["path"])
            if self.num_classes is not None:
                require_known_ids(np.array(mask.histogram()), self.num_classes, stored["path"])
            return Part(mask, box.left, box.top)

        return Large((layout.width, layout.height), read)

    def _kept_image_and_gaps(self, stored: Stored) -> tuple[Picture, np.ndarray | None]:
        if self.cache is None or raster_layout(stored):  # whose gaps would be lost
            return self.image_and_gaps(stored)
        return kept(self.cache, stored, f"image {self}", lambda: self.image(stored)), None

    def _kept_mask(self, stored: Stored) -> PILImage.Image:
        if self.cache is None:
            return self.mask(stored)
        mask = kept(self.cache, stored, f"mask {self}", lambda: self.mask(stored))
        assert isinstance(mask, PILImage.Image)
        return mask

    def count_channels(self, stored: Stored) -> int:
        """Channels of an image as it is decoded; nothing is, here.

        Raises:
            InputError: It cannot be read.
        """
        return count_channels(stored, self.bands)

    def _check_channels(self, found: int, name: str) -> None:
        if self.num_channels not in (None, found):
            stored = "an image" if found != len(RGB) else "a TIFF, or an array [height, width, channels],"
            raise InputError(
                f"{name} has {found} channels, but the model takes {self.num_channels}: give it {stored} of "
                f"{self.num_channels}"
            )

    def _to_bytes(self, values: np.ndarray, name: str) -> np.ndarray:
        """Values as 8 bits, others than those in the range; where there are no data 0."""
        if values.dtype == np.uint8:
            return np.ma.getdata(values)
        if self.image_range is None:
            raise InputError(
                f"{name} holds {values.dtype} values from {values.min()} to {values.max()}: set "
                "`image_range: [LOW, HIGH]` to the values that are to become black and white"
            )
        plain = np.ma.filled(values, 0)
        if not np.isfinite(plain).all():
            raise InputError(f"{name} holds values that are not finite: write numbers in their place")
        low, high = self.image_range
        pixels = np.empty(plain.shape, np.uint8)
        for top in range(0, len(plain), ROWS):  # of a large image not all in eight bytes a value at once
            clipped = np.clip(plain[top : top + ROWS].astype(np.float64), low, high)
            pixels[top : top + ROWS] = (clipped - low) * (255 / (high - low)) + 0.5
        if np.ma.is_masked(values):
            pixels[np.ma.getmaskarray(values)] = 0
        return pixels

    def mask(self, stored: Stored) -> PILImage.Image:
        """Decode a mask.

        Raises:
            InputError: It cannot be read, has colours no class is known for, or ids beyond 255.
        """
        name = stored["path"] or "a mask"
        if is_drawing(stored):
            return self._merge(draw(stored))
        return self._as_mask(mask_values(stored), name)

    def _as_mask(self, values: np.ndarray, name: str) -> PILImage.Image:
        if self.mask_colors:
            if not ((values >= 0) & (values <= 255)).all():
                raise mask_error(name, "holds values that are no colours of 0 to 255: redraw it")
            # of grey with transparency the grey counts
            grey = values if values.ndim == 2 else values[..., 0]
            is_grey = values.ndim == 2 or values.shape[-1] < 3
            colors = np.stack([grey] * 3, -1) if is_grey else values[..., :3]
            return self._merge(self._color_ids(colors.astype(np.int32), name))
        if self.mask_threshold is not None:
            values = self._above_threshold(values)
        if values.ndim != 2:
            raise mask_error(
                name,
                f"is painted in colours ({PAINTED[values.shape[-1]]}) where one channel of class ids is "
                "expected: list the classes' colours in `mask_colors`",
                cause="painted",
            )
        if values.dtype.kind == "f":
            # as float16 the bound would overflow
            if not (np.abs(values.astype(np.float64)) < 1 << 31).all() or (values != np.rint(values)).any():
                raise mask_error(name, f"holds {values.dtype} values that are no class ids: redraw it")
            values = values.astype(np.int64)
        ids = self._ids(values)
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest > IGNORE_INDEX:
            raise mask_error(
                name,
                f"holds the value {lowest if lowest < 0 else highest}, but class ids go from 0 to 254 and "
                "255 means ignore: give it a class id in `mask_values`",
            )
        return self._merge(ids.astype(np.uint8))

    def _merge(self, ids: np.ndarray) -> PILImage.Image:
        return PILImage.fromarray(np.array(self.merged, np.uint8)[ids] if self.merged else ids)

    def _above_threshold(self, values: np.ndarray) -> np.ndarray:
        """1 where the mask is as bright as the threshold: of a painted one the mean of its colours."""
        num_colors = 3 if values.shape[-1] >= 3 else 1  # beside them is transparency
        grey = values if values.ndim == 2 else values[..., :num_colors].mean(-1)
        return (grey >= self.mask_threshold).astype(np.uint8)

    def _ids(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.uint8:  # in one byte a pixel
            return np.asarray(PILImage.fromarray(values).point(self._lookup[:256].tolist()))
        if values.dtype == np.uint16:
            return self._lookup[values]
        ids = np.where(
            (values >= 0) & (values < len(self._lookup)), self._lookup[values.clip(0, 65535)], values
        )
        for old, new in self.mask_values:
            if not 0 <= old < len(self._lookup):
                ids[values == old] = new
        return ids

    @cached_property
    def _lookup(self) -> np.ndarray:
        """Class id of every 16-bit mask value."""
        ids = np.arange(1 << 16)
        if self.reduce_labels:
            ids[1:IGNORE_INDEX] -= 1
            ids[0] = IGNORE_INDEX
        for old, new in self.mask_values:
            if 0 <= old < len(ids):
                ids[old] = new
        return ids

    @cached_property
    def _noise(self) -> float:
        """Half the smallest distance between two classes' colours."""
        colors = np.array(self.mask_colors)[:, :3]
        distances = np.linalg.norm(colors[:, None] - colors, axis=-1)
        return float(distances[distances > 0].min(initial=442.0)) / 2

    def _color_ids(self, colors: np.ndarray, name: str) -> np.ndarray:
        codes = colors @ [1 << 16, 1 << 8, 1]
        known = np.array(self.mask_colors) @ [1 << 16, 1 << 8, 1]
        order = np.argsort(known)
        nearest = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
        is_other = known[nearest] != codes
        if not is_other.any():
            return nearest.astype(np.uint8)
        others, places, counts = np.unique(codes[is_other], return_inverse=True, return_counts=True)
        channels = np.stack([others >> 16, others >> 8 & 255, others & 255], -1)
        distances = np.linalg.norm(channels[:, None] - np.array(self.mask_colors)[:, :3], axis=-1)
        if distances.min(1).max() > self.color_tolerance:
            listed = ", ".join(f"#{code:06x}" for code in others[:5])
            # the noise of JPEG lies near a class's colour but at edges
            if counts[distances.min(1) > self._noise].sum() < MOSTLY_NOISE * codes.size:
                problem = f"has colours near those of classes ({listed}), as JPEG leaves them"
                raise mask_error(name, f"{problem}: set `{NEAREST_COLOR}`", cause=NEAREST_COLOR)
            raise mask_error(name, f"has colours that no class has ({listed}): add them to `mask_colors`")
        nearest[is_other] = distances.argmin(1)[places]
        return nearest.astype(np.uint8)


def rows_to_dataset(ids: Sequence[str], images: Sequence[Any], masks: Sequence[Any] | None = None) -> Dataset:
    """Make a `Dataset` of rows that decode when they are read.

    Args:
        ids: A name for each row.
        images: A path, or a PIL image, for each row.
        masks: The same for the masks; None for unlabeled rows.
    """
    columns: dict[str, list[Any]] = {"id": list(ids), "image": [_storable(image) for image in images]}
    features = {"id": Value("string"), "image": STORED_IMAGE}
    if masks is not None:
        columns["mask"] = [_storable(mask) for mask in masks]
        features["mask"] = STORED_IMAGE
    return Dataset.from_dict(columns, features=Features(features)).with_transform(RowDecoder())


def _storable(picture: Any) -> Any:
    return str(picture) if isinstance(picture, Path) else picture
