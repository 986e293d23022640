"""`pos-hf evaluate MODEL DATA`: scores of a model on labeled images, as a table and as metrics.json."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pos_hf.cli.parsing import (
    CommandParser,
    add_inference_arguments,
    add_model_arguments,
    importing,
    inference_from,
)
from pos_hf.files import keep_existing

if TYPE_CHECKING:
    from pos_hf.evaluation import Evaluation


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

    from pos_hf.run_folder import COUNTS_FILE, SCORES_FILE, WORST

    if args.out:
        written = [args.out / name for name in (SCORES_FILE, COUNTS_FILE)]
        keep_existing(written, "give another folder to --out")

    with importing():
        from accelerate import Accelerator

        from pos_hf.evaluation import evaluate_images, keep_confident, load_for_inference, palette_of
        from pos_hf.evaluation.evaluator import predict_images
        from pos_hf.evaluation.results import protocol
        from pos_hf.reporting import worst_images, write_examples
        from pos_hf.runs.rows import load_rows

    model, image_processor = load_for_inference(args.model, "cpu", args.trust_remote_code, args.subfolder)
    data, role = load_rows(args.data, args.role, model, image_processor)
    accelerator = Accelerator()  # not before: reading a config makes transformers reset accelerate's state
    model.to(accelerator.device)
    inference, rows = inference_from(args), data.masked_roles[role]
    labeler = None if args.threshold is None else partial(keep_confident, threshold=args.threshold)
    evaluation = evaluate_images(
        model,
        rows,
        image_processor,
        inference=inference,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        accelerator=accelerator,
        detailed=True,
        pseudo_labeler=labeler,
    )
    if accelerator.is_main_process:
        print(f"{args.model} on {len(evaluation.ids)} {role} images of {data.name}\n\n{table(evaluation)}")
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            facts = {"dataset": data.name, "role": role, "split_hash": data.split_hash()}
            evaluation.save(args.out, protocol(model, inference, **facts))
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
    add_model_arguments(parser)
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
    add_inference_arguments(parser)
    return parser


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
