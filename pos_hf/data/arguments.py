"""The options of the data: which dataset, which labels, which views. Read by the sources and views.py."""

from dataclasses import dataclass, field


@dataclass
class DataArguments:
    """Where images and masks come from and how they are cut.

    Paths are relative to `dataset` unless absolute. Sizes left at None mean "all there are".
    """

    dataset: str = field(
        default="shapes",
        metadata={"help": "`shapes` (generated, nothing to download) or the folder that holds the images."},
    )
    images: str = field(default="images", metadata={"help": "Folder of the training images."})
    masks: str = field(
        default="masks",
        metadata={"help": "Folder of their masks: the same names, one channel of class ids, 255 = ignore."},
    )
    unlabeled: str = field(
        default="unlabeled",
        metadata={"help": "Folder of further images without masks, used where it exists."},
    )
    labeled_ids: str | None = field(
        default=None,
        metadata={
            "help": "List of the labeled images: a file name without suffix, or an `image mask` pair of "
            "paths, a line. Default: every image of `images`."
        },
    )
    unlabeled_ids: str | None = field(
        default=None,
        metadata={
            "help": "List of the unlabeled images, written like `labeled_ids`. Default: the images of "
            "`images` that are not labeled, and all of `unlabeled`."
        },
    )
    selection_images: str = field(
        default="selection/images",
        metadata={"help": "Images to choose checkpoints and settings on, used where the folder exists."},
    )
    selection_masks: str = field(
        default="selection/masks", metadata={"help": "Folder of the masks of `selection_images`."}
    )
    test_images: str = field(
        default="test/images",
        metadata={"help": "Images of the final test, never trained on, used where the folder exists."},
    )
    test_masks: str = field(default="test/masks", metadata={"help": "Folder of the masks of `test_images`."})
    id2label: str = field(
        default="id2label.json",
        metadata={"help": 'JSON file of the class names: {"0": "background", "1": "cat"}.'},
    )

    num_labeled: int | None = field(
        default=None,
        metadata={"help": "Keep this many labels, drawn by `split_seed`; the rest becomes unlabeled."},
    )
    num_unlabeled: int | None = field(default=None, metadata={"help": "Keep this many unlabeled images."})
    num_test: int | None = field(default=None, metadata={"help": "Keep this many test images."})
    split_seed: int = field(
        default=0, metadata={"help": "Seed of every drawn split, and of the images of `shapes`."}
    )
    selection_share: float = field(
        default=0.1,
        metadata={
            "help": "Share of the labeled images set aside as the selection set when none is given; 0 trains "
            "on every label, as published protocols do."
        },
    )

    crop_size: int = field(default=96, metadata={"help": "Side of the square training crop, in pixels."})
    scale_range: list[float] = field(
        default_factory=lambda: [0.5, 2.0],
        metadata={"help": "Range of the random resize before the crop, relative to the image's longer side."},
    )
