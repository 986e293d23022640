"""The options of the data: which dataset, which labels, which views. Read by the sources and views.py."""

import json
import os
import reprlib
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from PIL import ImageColor

from pos_hf.errors import InputError
from pos_hf.values import check_group

INTERVALS = {
    "num_labeled": "[1, inf)",
    "num_unlabeled": "[1, inf)",
    "num_test": "[1, inf)",
    "split_seed": "[0, 4294967295]",
    "selection_share": "[0, 1)",
    "crop_size": "[1, 16384]",
    "scale_range": "(0, 100]",
    "unlabeled_ratio": "[1, 65536]",
    "rare_class_retries": "[0, 1000]",
    "bands": "[1, 65535]",
    "image_std": "(0, inf)",
    "color_tolerance": "[0, 442]",
}

PATHS = (
    "dataset",
    "images",
    "masks",
    "unlabeled",
    "labeled_ids",
    "unlabeled_ids",
    "selection_images",
    "selection_masks",
    "selection_ids",
    "test_images",
    "test_masks",
    "test_ids",
    "id2label",
    "image_cache",
)


@dataclass
class DataArguments:
    """Where images and masks come from, which of them are labeled, and how they are cut.

    Paths but `image_cache` are relative to `dataset` unless absolute. Sizes left at None mean "all there
    are".
    """

    dataset: str = field(
        default="shapes",
        metadata={
            "help": "`shapes` (generated, nothing to download), a folder, a .zip or .tar, or a Hub "
            "dataset's id."
        },
    )
    dataset_format: str = field(
        default="auto",
        metadata={
            "help": "How `dataset` is laid out: folders, huggingface, an annotation format (coco_json, "
            "cvat_xml, label_studio, labelme, supervisely, yolo), or a benchmark as published (pascal, "
            "cityscapes, coco, ade20k). `auto` looks."
        },
    )

    # folders and benchmarks
    images: str = field(
        default="images",
        metadata={"help": "Folder of the training images, or a pattern of files like `*/photos/*.jpg`."},
    )
    masks: str = field(
        default="masks",
        metadata={
            "help": "Folder of their masks, or a pattern: the same names, one channel of class ids, 255 = "
            "ignore."
        },
    )
    unlabeled: str = field(
        default="unlabeled",
        metadata={"help": "Folder of further images without masks, used where it exists."},
    )
    labeled_ids: str | None = field(
        default=None,
        metadata={
            "help": "List of the labeled images: a file name, a path, an `image mask` pair of paths, or the "
            "id of a row, a line. Default: every image of `images`."
        },
    )
    unlabeled_ids: str | None = field(
        default=None,
        metadata={
            "help": "List of the unlabeled images, written like `labeled_ids`. Default: the images of "
            "`images` that play no other role, and all of `unlabeled`."
        },
    )
    selection_images: str = field(
        default="selection/images",
        metadata={"help": "Images to choose checkpoints and settings on, used where the folder exists."},
    )
    selection_masks: str = field(
        default="selection/masks", metadata={"help": "Folder of the masks of `selection_images`."}
    )
    selection_ids: str | None = field(
        default=None, metadata={"help": "List of the selection images. Default: all of `selection_images`."}
    )
    test_images: str = field(
        default="test/images",
        metadata={"help": "Images of the final test, never trained on, used where the folder exists."},
    )
    test_masks: str = field(default="test/masks", metadata={"help": "Folder of the masks of `test_images`."})
    test_ids: str | None = field(
        default=None, metadata={"help": "List of the test images. Default: all of `test_images`."}
    )
    image_suffix: str = field(
        default="",
        metadata={
            "help": "End of the images' names that is not part of the id, like `_photo`: in `images`, and in "
            "the folders of other roles where names end so."
        },
    )
    mask_suffix: str = field(
        default="",
        metadata={
            "help": "End of the masks' names that is not part of the id, like `_mask`: in `masks`, and in "
            "the folders of other roles where names end so."
        },
    )

    fold_masks: bool = field(
        default=False,
        metadata={
            "help": "Several masks of an image, named after it or in a folder of its own, show an object "
            "each: what is not zero in one of them is class 1."
        },
    )
    split_pages: bool = field(
        default=False,
        metadata={"help": "Take each page of a TIFF for an image, or a mask, of its own."},
    )
    unannotated_images: Literal["unlabeled", "background"] | None = field(
        default=None,
        metadata={
            "help": "What an image without a mask or annotation is. Default: unlabeled in annotation "
            "formats, an error in folders of masks."
        },
    )

    # annotation formats
    unnamed_area: Literal["background", "ignore"] = field(
        default="background", metadata={"help": "What the area is that no annotated shape covers."}
    )
    merge_labels: dict[str, str | None] | str | None = field(
        default=None,
        metadata={
            "help": 'New classes of labels, as JSON: {"van": "car", "shadow": null}; null drops a label, as '
            "if it had not been annotated, and `ignore` ignores its pixels."
        },
    )

    # dataset_format: huggingface
    image_column: str = field(default="image", metadata={"help": "Column of the images (huggingface)."})
    mask_column: str = field(default="mask", metadata={"help": "Column of the masks (huggingface)."})
    id_column: str | None = field(
        default=None, metadata={"help": "Column that names a row (huggingface). Default: split and number."}
    )
    labeled_split: str = field(default="train", metadata={"help": "Split with masks to train on."})
    unlabeled_split: str = field(
        default="unlabeled", metadata={"help": "Split to train on without masks, used where it exists."}
    )
    selection_split: str = field(
        default="validation", metadata={"help": "Split to choose settings on, used where it exists."}
    )
    test_split: str = field(default="test", metadata={"help": "Split of the test, used where it exists."})

    # classes and the meaning of masks and pixels
    id2label: str = field(
        default="id2label.json",
        metadata={"help": 'JSON file of the class names: {"0": "background", "1": "cat"}.'},
    )
    class_names: list[str] | None = field(
        default=None, metadata={"help": "Class names in the order of ids, in place of the `id2label` file."}
    )
    mask_values: dict[str, int] | str | None = field(
        default=None,
        metadata={
            "help": 'Class ids of mask values, also negative ones, as JSON: {"255": 1}. Other values stay as '
            "they are."
        },
    )
    mask_colors: list[str] | None = field(
        default=None,
        metadata={"help": "Colours (#rrggbb) of the classes in colour masks, in the order of ids."},
    )
    color_tolerance: float = field(
        default=0.0,
        metadata={
            "help": "Distance in RGB up to which a pixel of a colour mask has the nearest class's colour, as "
            "JPEG and smoothed edges leave them."
        },
    )
    reduce_labels: bool | None = field(
        default=None, metadata={"help": "Masks count classes from 1: lower ids by one, and ignore 0."}
    )
    mask_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Mask values from here on are class 1, those below class 0: for binary masks with "
            "smoothed edges, or of JPEG."
        },
    )
    bands: list[int] | None = field(
        default=None,
        metadata={
            "help": "Bands of the images to use, counted from 1, in this order, like [4, 3, 2]. Default: all."
        },
    )
    image_range: list[float] | None = field(
        default=None,
        metadata={
            "help": "Values of 16-bit or float images that become 0 and 255; what is beyond is clipped."
        },
    )
    image_mean: list[float] | None = field(
        default=None, metadata={"help": "Mean of each channel in 0 to 1. Default: ImageNet's."}
    )
    image_std: list[float] | None = field(
        default=None, metadata={"help": "Standard deviation of each channel. Default: ImageNet's."}
    )

    # roles
    num_labeled: int | None = field(
        default=None,
        metadata={"help": "Keep this many labels, drawn by `split_seed`; the rest becomes unlabeled."},
    )
    num_unlabeled: int | None = field(default=None, metadata={"help": "Keep this many unlabeled images."})
    num_test: int | None = field(default=None, metadata={"help": "Keep this many test images."})
    split_seed: int = field(
        default=0, metadata={"help": "Seed of every drawn split, and of the images of `shapes`."}
    )
    balanced_split: bool = field(
        default=False, metadata={"help": "Draw the `num_labeled` labels so that rare classes are covered."}
    )
    selection_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of the labeled images set aside as the selection set when none is given. Default: "
            "0.1 where `eval_strategy` evaluates during training, else 0, which trains on every label."
        },
    )

    # views and sampling
    crop_size: int = field(default=96, metadata={"help": "Side of the square training crop, in pixels."})
    scale_range: list[float] = field(
        default_factory=lambda: [0.5, 2.0],
        metadata={"help": "Range of the random resize before the crop, relative to the image's longer side."},
    )
    strong_views: Literal["default", "gentle", "no_color"] = field(
        default="default",
        metadata={
            "help": "Strong views as published, or, where colour is the class, without saturation, hue and "
            "grayscale (no_color), and with half the changes of brightness and contrast (gentle)."
        },
    )
    device_views: bool | None = field(
        default=None,
        metadata={
            "help": "Make the strong views on the accelerator: same draws, less work for workers. "
            "Left out, `pos-hf train` does so on a GPU."
        },
    )
    unlabeled_ratio: int = field(
        default=1,
        metadata={"help": "Unlabeled images a labeled one: B unlabeled go with B / ratio labeled."},
    )
    epoch_over: Literal["unlabeled", "labeled"] = field(
        default="unlabeled",
        metadata={
            "help": "The images that an epoch goes through once. `labeled` is the epoch of the published "
            "supervised baselines."
        },
    )
    class_aware_sampling: bool = field(
        default=False, metadata={"help": "Draw a class first, then a labeled image that shows it."}
    )
    rare_class_retries: int = field(
        default=0,
        metadata={
            "help": "Draw a labeled crop anew up to this often when it misses its image's rare classes."
        },
    )
    image_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder where decoded images and masks are kept, so that later epochs and runs need not "
            "decode them: the same pixels, 3 bytes each. In /dev/shm it is memory."
        },
    )
    on_bad_sample: Literal["stop", "skip"] = field(
        default="stop",
        metadata={
            "help": "An image that cannot be read during training stops the run, or is skipped: the next "
            "readable one takes its place, which is counted and logged."
        },
    )

    def __post_init__(self) -> None:
        check_group(self, INTERVALS)
        for name in PATHS:
            if str(getattr(self, name)).startswith("~/"):
                setattr(self, name, os.path.expanduser(getattr(self, name)))
        for name in ("image_range", "scale_range"):
            bounds = getattr(self, name)
            if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
                raise InputError(f"{name} is {bounds}, but must be a lower and an upper bound: [LOW, HIGH]")
        if self.bands == []:
            raise InputError("bands is empty, but must name one: list the images' bands from 1 on")
        if self.image_range is not None and self.image_range[0] == self.image_range[1]:
            raise InputError(f"image_range is {self.image_range}, which leaves no grey levels: widen it")
        try:
            if isinstance(self.mask_values, str):
                self.mask_values = dict(json.loads(self.mask_values))
            pairs = {int(old): new for old, new in (self.mask_values or {}).items()}
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            given = reprlib.repr(self.mask_values)
            raise InputError(f"mask_values {given} is no mapping like {{255: 1}}") from error
        if not all(-(1 << 31) <= old < 1 << 31 and new in range(256) for old, new in pairs.items()):
            raise InputError(
                "mask_values maps values of masks (-2147483648 to 2147483647) to class ids (0 to 254) or "
                "255: correct it"
            )
        self._check_merged()
        for color in self.mask_colors or ():
            try:
                ImageColor.getrgb(color)
            except ValueError as error:
                raise InputError(f"mask_colors has {color!r}, which is no colour like '#ff8000'") from error

    def _check_merged(self) -> None:
        try:
            if isinstance(self.merge_labels, str):
                self.merge_labels = dict(json.loads(self.merge_labels))
            pairs = dict(self.merge_labels or {}).items()
            is_mapping = all(isinstance(old, str) and isinstance(new, str | None) for old, new in pairs)
        except (TypeError, ValueError, RecursionError):
            is_mapping = False
        if not is_mapping:
            given = reprlib.repr(self.merge_labels)
            raise InputError(f'merge_labels {given} is no mapping like {{"van": "car", "shadow": null}}')


def differing_options(args: DataArguments) -> dict[str, Any]:
    """What a config must say to load the same: `dataset`, and the options that differ from their defaults."""
    defaults = DataArguments()
    return {
        option.name: getattr(args, option.name)
        for option in fields(args)
        if option.name == "dataset" or getattr(args, option.name) != getattr(defaults, option.name)
    }
