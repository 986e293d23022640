"""`pos-hf predict MODEL IMAGES --out DIR`: palette masks and overlays of a folder of images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pos_hf.cli.parsing import CommandParser, keep_existing
from pos_hf.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: There is no image, one cannot be read, or a file that would be written exists.
    """
    args = parser().parse_args(argv)

    from accelerate import PartialState
    from tqdm.auto import tqdm

    from pos_hf.cli.evaluate import inference_from
    from pos_hf.evaluation import label_names, load_for_inference, palette_of, predict_images
    from pos_hf.reporting.pictures import mask_picture, overlay, with_legend

    sources = find_images(args.images)
    targets = plan_outputs(sources, args.images, args.out)
    model, image_processor = load_for_inference(
        args.model, PartialState().device, args.trust_remote_code, args.subfolder
    )
    names = list(label_names(model).values())
    palette = palette_of(model)
    inference = inference_from(args)
    for source, (mask_path, overlay_path) in zip(
        tqdm(sources, desc="Predicting", unit="img"), targets, strict=True
    ):
        image = read_image(source)
        (prediction,) = predict_images(model, [image], image_processor, inference)
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        overlay_path.parent.mkdir(parents=True, exist_ok=True)
        mask_picture(prediction, palette).save(mask_path)
        with_legend(overlay(image, prediction, palette), prediction, names, palette).save(overlay_path)
    print(f"{len(sources)} masks in {args.out / 'masks'}, overlays in {args.out / 'overlays'}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    from pos_hf.cli.evaluate import add_inference_arguments, add_remote_code_argument

    parser = CommandParser(
        prog="pos-hf predict",
        description="Predict images: DIR/masks gets palette PNGs of class ids, DIR/overlays pictures.",
    )
    parser.add_argument("model", help="folder of a trained model, or the id of a Hub repository")
    parser.add_argument("images", type=Path, help="an image, or a folder that is searched for images")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; existing files are kept")
    add_remote_code_argument(parser)
    add_inference_arguments(parser)
    return parser


def find_images(source: Path) -> list[Path]:
    """The image files under a folder, sorted, or the one file given.

    Raises:
        InputError: There is none.
    """
    from pos_hf.data.folders import IMAGE_SUFFIXES

    if source.is_file():
        return [source]
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"'{source}' holds no image; known suffixes are {known}.")
    return found


def plan_outputs(sources: list[Path], root: Path, out: Path) -> list[tuple[Path, Path]]:
    """The mask and overlay file of each image; folders below `root` are kept.

    Raises:
        InputError: Two images would share a file, or a file exists.
    """
    targets: dict[Path, Path] = {}
    for source in sources:
        name = (source.relative_to(root) if root.is_dir() else Path(source.name)).with_suffix(".png")
        if name in targets:
            raise InputError(f"'{targets[name]}' and '{source}' would share '{name}': rename one of them.")
        targets[name] = source
    files = [(out / "masks" / name, out / "overlays" / name) for name in targets]
    keep_existing((path for pair in files for path in pair), "give another folder to --out")
    return files


def read_image(path: Path) -> "Image.Image":
    """The image in RGB, turned upright as its EXIF data says.

    Raises:
        InputError: It cannot be read.
    """
    from pos_hf.data.decoding import read_picture

    return read_picture({"path": str(path), "bytes": None}).convert("RGB")
