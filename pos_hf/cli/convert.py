"""`pos-hf convert SOURCE --to DIR`: a published checkpoint becomes a folder that from_pretrained loads."""

import argparse
import json
from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing
from pos_hf.errors import InputError, first_sentence
from pos_hf.files import keep_existing

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf convert",
        description="Convert a local checkpoint of UniMatch V1 or V2 (to a segmentation model), or of "
        "DINOv2, a ResNet or Xception-65 (to a backbone for `backbone_weights`).",
    )
    parser.add_argument("source", type=Path, help="the .pth or .safetensors file")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--weights",
        choices=["model", "model_ema"],
        help="which weights to take (default: the EMA model if any)",
    )
    parser.add_argument("--id2label", type=Path, metavar="FILE", help="JSON object of class names by id")
    parser.add_argument("--partial", action="store_true", help="accept missing and left-over tensors")
    return parser


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the checkpoint or the class names cannot be used.
    """
    args = parser().parse_args(argv)
    id2label = None
    if args.id2label is not None:
        try:
            names = json.loads(args.id2label.read_text())
            id2label = dict(sorted((int(key), str(label)) for key, label in names.items()))
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{args.id2label} is no JSON object of class names by id: {first_sentence(error)}"
            ) from error
    keep_existing([args.to / name for name in FILES], "give another folder to --to")

    with importing():
        from pos_hf.models.convert import convert_checkpoint
        from pos_hf.models.processors import default_image_processor

    model, report = convert_checkpoint(
        args.source, weights=args.weights, id2label=id2label, strict=not args.partial
    )
    model.save_pretrained(args.to)
    default_image_processor().save_pretrained(args.to)
    print(f"{report}\n{type(model).__name__} written to {args.to}")
    return 0
