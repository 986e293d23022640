"""`pos-hf export MODEL --format onnx --to FILE`: a trained model for runtimes without torch."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from pos_hf.cli.parsing import CommandParser, add_model_arguments, importing
from pos_hf.errors import InputError
from pos_hf.files import keep_existing


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf export",
        description="Write a model as ONNX, of any batch and image size, and check it against torch.",
    )
    add_model_arguments(parser)
    parser.add_argument("--format", choices=["onnx"], default="onnx")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="file to write")
    return parser


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the extra `onnx` is not installed, or the model does not load or cannot be exported.
    """
    args = parser().parse_args(argv)
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"exporting needs {', '.join(missing)}: pip install 'pos_hf[onnx]'")
    keep_existing([args.to], "give another file to --to")

    with importing():
        from pos_hf.evaluation import load_for_inference
        from pos_hf.models.export import export_onnx

    model, image_processor = load_for_inference(args.model, "cpu", args.trust_remote_code, args.subfolder)
    difference = export_onnx(model, args.to, image_processor)
    print(f"{args.to} written; its logits differ from torch's by at most {difference:.1e}")
    return 0
