"""`pos-hf landscape RUN [RUN ...] --data DATA`: loss and mIoU around trained weights, the report's Fig. 5."""

import argparse
from pathlib import Path

from pos_hf.cli.parsing import CommandParser, add_remote_code_argument, importing


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: A model or the data cannot be used, or a landscape was begun with other settings.
    """
    args = parser().parse_args(argv)

    with importing():
        from accelerate import PartialState

        from pos_hf.evaluation import load_for_inference
        from pos_hf.reporting.landscape import batches_of, write_landscape
        from pos_hf.run_folder import LANDSCAPE_FILE
        from pos_hf.runs.rows import load_rows

    device = PartialState().device
    for run in args.runs:
        model, image_processor = load_for_inference(str(run), device, args.trust_remote_code)
        data, test_role = load_rows(args.data, None, model, image_processor)
        write_landscape(
            model,
            batches_of(data.labeled, image_processor, device, args.train_images),
            batches_of(data.masked_roles[test_role], image_processor, device, args.test_images),
            run / LANDSCAPE_FILE,
            points=args.points,
            dimensions=args.dimensions,
            radius=args.radius,
            seed=args.seed,
            description=run.name,
        )
    print(f"measured; now: pos-hf report {' '.join(map(str, args.runs))}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf landscape",
        description="Measure training loss and test mIoU around trained weights, along the same directions "
        "for every run, and the sharpness of the minimum. An interrupted measurement is continued.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of training runs")
    parser.add_argument("--data", required=True, help="`shapes` or the config the runs were trained with")
    parser.add_argument("--points", type=int, default=21, help="points along each direction, odd")
    parser.add_argument("--dimensions", type=int, choices=(1, 2), default=1, help="number of directions")
    parser.add_argument(
        "--radius", type=float, default=1.0, help="largest step; 1 is the weights' own length"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the directions")
    parser.add_argument("--train_images", type=int, default=16, help="labeled images of the training loss")
    parser.add_argument("--test_images", type=int, default=64, help="test images of the mIoU")
    add_remote_code_argument(parser)
    return parser
