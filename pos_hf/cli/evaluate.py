"""`pos-hf evaluate MODEL DATA`: scores of a model on labeled images, as a table and as metrics.json."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pos_hf.cli.parsing import CommandParser, keep_existing
from pos_hf.errors import InputError
from pos_hf.files import COUNTS_FILE, SCORES_FILE

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel

    from pos_hf.data import SegmentationData
    from pos_hf.evaluation import Evaluation, Inference

CONFIG_SUFFIXES = (".yaml", ".yml")


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: The model or the data cannot be used, or a file that would be written exists.
    """
    args = parser().parse_args(argv)
    if args.out:
        keep_existing(
            [args.out / name for name in (SCORES_FILE, COUNTS_FILE)], "give another folder to --out"
        )

    from accelerate import Accelerator

    from pos_hf.evaluation import (
        evaluate_images,
        keep_confident,
        load_for_inference,
        palette_of,
        predict_images,
        protocol,
    )
    from pos_hf.reporting import WORST, worst_images, write_examples

    model, image_processor = load_for_inference(args.model, "cpu", args.trust_remote_code, args.subfolder)
    data, role = load_rows(args.data, args.role, model, image_processor)
    accelerator = Accelerator()  # not before: reading a config makes transformers reset accelerate's state
    model.to(accelerator.device)
    inference, rows = inference_from(args), data.masked_roles[role]
    evaluation = evaluate_images(
        model,
        rows,
        image_processor,
        inference=inference,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        accelerator=accelerator,
        detailed=True,
        pseudo_labeler=None if args.threshold is None else partial(keep_confident, threshold=args.threshold),
    )
    if accelerator.is_main_process:
        print(f"{args.model} on {len(evaluation.ids)} {role} images of {data.name}\n\n{table(evaluation)}")
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            evaluation.save(
                args.out,
                protocol(model, inference, dataset=data.name, role=role, split_hash=data.split_hash()),
            )
            worst = rows.select(worst_images(evaluation.image_areas.numpy()))
            predictions = predict_images(model, worst["image"], image_processor, inference)
            names = list(evaluation.id2label.values())
            write_examples(args.out / WORST, worst, predictions, names, palette_of(model))
            print(f"\nwritten: {args.out / SCORES_FILE}, pictures of the worst images in {args.out / WORST}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf evaluate", description="Score a segmentation model on labeled images of any size."
    )
    parser.add_argument("model", help="folder of a trained model, or the id of a Hub repository")
    parser.add_argument("data", help="`shapes`, a folder with images/ and masks/, or the config of a run")
    parser.add_argument(
        "--role",
        help="images of a config: test (default; selection where there are none), selection or labeled",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for metrics.json, the scores of each image and pictures of the worst"
    )
    parser.add_argument("--batch_size", type=int, default=8, help="images of one shape predicted together")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that decode images")
    parser.add_argument(
        "--threshold", type=float, help="also measure the pseudo-labels that this confidence would keep"
    )
    add_remote_code_argument(parser)
    add_inference_arguments(parser)
    return parser


def add_remote_code_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of every command that loads a trained model."""
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run the model code that the folder brings along"
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `inference_from` reads; `pos-hf predict` has the same."""
    parser.add_argument("--subfolder", default="", help="where in it the model lies, for example student")
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--multiple", type=int, help="resize sides to this multiple (default: the patch; 1: never)"
    )
    group.add_argument("--window", type=int, help="side of a sliding window in pixels")
    group.add_argument(
        "--layout",
        choices=("shifted", "truncated"),
        default="shifted",
        help="last window inside the image (UniMatch V2) or cut at its border (V1)",
    )
    group.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average over these scales")
    group.add_argument("--flip", action="store_true", help="average also over the mirrored image")


def inference_from(args: argparse.Namespace) -> "Inference":
    """The inference that the command line describes."""
    from pos_hf.evaluation import Inference

    return Inference(args.multiple, args.window, args.layout, tuple(args.scales), args.flip)


def load_rows(
    source: str, role: str | None, model: "PreTrainedModel", image_processor: "BaseImageProcessor"
) -> "tuple[SegmentationData, str]":
    """The data to score and the role whose images are scored, read as the model was trained to.

    Args:
        source: `shapes`, a config file, or a folder with images/ and masks/ (all of them are scored).
        role: Role asked for, None for the default.
        model: Its classes are matched by name.
        image_processor: The model's; its value range goes before the config's.

    Raises:
        InputError: The data does not exist, lacks the role, or has other classes or channels than the model.
    """
    from pos_hf.cli.config import parse_config
    from pos_hf.data import DataArguments, load_data
    from pos_hf.data.matching import with_classes_of
    from pos_hf.evaluation import label_names
    from pos_hf.models.processors import image_range, num_channels

    bounds = image_range(image_processor)
    if source == "shapes":
        data = load_data(DataArguments())
    elif source.endswith(CONFIG_SUFFIXES):
        _, data_args, training = parse_config(Path(source), [])
        if bounds is not None:
            data_args.image_range = list(bounds)
        data = load_data(data_args, "unsupervised" in training.get_method().objectives)
    else:
        data, role = load_folder(Path(source), label_names(model), bounds), "labeled"
    if data.num_channels != num_channels(model):
        raise InputError(
            f"the images of {data.name} have {data.num_channels} channels, but the model takes "
            f"{num_channels(model)}: score it on images like those it was trained on"
        )
    data = with_classes_of(data, label_names(model))
    role = role or ("selection" if data.test is None else "test")  # as training does
    if role not in data.masked_roles:
        raise InputError(f"{data.name} has no {role} images: --role is {' or '.join(data.masked_roles)}.")
    return data, role


def load_folder(
    folder: Path, id2label: dict[int, str], image_range: tuple[float, float] | None
) -> "SegmentationData":
    """Every image of images/ with its mask of masks/, checked; classes of id2label.json where it is there."""
    from pos_hf.data import DataArguments, SegmentationData, validate
    from pos_hf.data.class_names import read_id2label
    from pos_hf.data.decoding import RowDecoder, rows_to_dataset
    from pos_hf.data.listing import list_images

    images, masks = list_images(folder / "images"), list_images(folder / "masks")
    if not images:
        raise InputError(f"'{folder / 'images'}' holds no image.")
    missing = sorted(images.keys() - masks.keys())
    if missing:
        raise InputError(f"the image '{images[missing[0]]}' has no mask ({len(missing)} such images).")
    if (folder / "id2label.json").is_file():
        id2label = read_id2label(DataArguments(dataset=str(folder)))
    rows = rows_to_dataset(list(images), list(images.values()), [masks[name] for name in images])
    rows = rows.with_transform(RowDecoder(image_range=image_range))
    unlabeled = rows.select([]).remove_columns("mask")
    data = SegmentationData(folder.name, rows, unlabeled, None, None, id2label, [])
    validate(data, for_training=False)
    return data


def table(evaluation: "Evaluation") -> str:
    """The scores in percent, one class a line."""
    from pos_hf.reporting.intervals import class_iou_intervals, mean_iou_interval

    image_areas = evaluation.image_areas.numpy()
    scores = evaluation.scores()
    mean = mean_iou_interval(image_areas)
    width = max(len("class"), *map(len, evaluation.id2label.values()))
    lines = [f"{'class':<{width}}   IoU   95 % interval   accuracy"]
    for interval, (name, accuracy) in zip(
        class_iou_intervals(image_areas), scores["per_category_accuracy"].items(), strict=True
    ):
        value, low, high = (100 * bound for bound in interval)
        lines.append(f"{name:<{width}} {value:5.1f}   {low:5.1f} - {high:5.1f}      {100 * accuracy:5.1f}")
    lines += [
        "",
        f"mIoU {100 * mean.value:.1f} "
        f"(95 % interval over images {100 * mean.low:.1f} - {100 * mean.high:.1f}); "
        f"absent classes as 0: {100 * scores['mean_iou_absent_zero']:.1f}",
        f"pixel accuracy {100 * scores['overall_accuracy']:.1f}, "
        f"mean accuracy {100 * scores['mean_accuracy']:.1f}, "
        f"frequency-weighted IoU {100 * scores['frequency_weighted_iou']:.1f}",
        f"boundary IoU {100 * scores['boundary_iou']:.1f}, "
        f"calibration error {100 * scores['expected_calibration_error']:.1f}",
    ]
    if "pseudo_labels" in scores:
        quality = scores["pseudo_labels"]
        lines.append(
            f"pseudo-labels: {100 * quality['coverage']:.1f} % of the pixels kept, "
            f"{100 * quality['precision']:.1f} % of them right"
        )
    return "\n".join(lines)
