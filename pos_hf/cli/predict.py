"""`pos-hf predict MODEL IMAGES --out DIR`: palette masks and overlays of a folder of images."""

import argparse
import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pos_hf.cli.parsing import (
    CommandParser,
    add_inference_arguments,
    add_model_arguments,
    importing,
    inference_from,
)
from pos_hf.errors import InputError, first_sentence
from pos_hf.files import keep_existing, written_aside

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from transformers import BaseImageProcessor, PreTrainedModel

    from pos_hf.data.annotating import Classes
    from pos_hf.data.decoding import RowDecoder
    from pos_hf.evaluation import Inference

# Of the images' folder, the model and the protocol: a rerun knows its own masks by it.
# Its name sorts before theirs, so it is put in place first.
RECORD = "made_by.json"
KINDS, CONFIDENCE = ("masks", "overlays"), "confidence"
TOOLS = ("coco", "cvat", "labelme", "labelstudio")
LIST, SHEET = "suggested.txt", "suggested.png"  # of `pos-hf suggest`
PICTURES_BESIDE = {RECORD: (*KINDS, CONFIDENCE, "cvat"), LIST: (SHEET,)}  # no images to predict
MAX_PIXELS = 89_478_485  # from here on Pillow warns of a decompression bomb; it refuses twice as many


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0, or 1 where an image had to be left out.

    Raises:
        InputError: There is no image, none can be predicted, or a file of another origin would be replaced.
    """
    args = parser().parse_args(argv)

    with importing():
        from accelerate import PartialState
        from tqdm.auto import tqdm

        from pos_hf.data.annotating import Classes
        from pos_hf.evaluation import label_names, load_for_inference, palette_of
        from pos_hf.evaluation.loading import decoder_for

    sources = find_images(args.images)
    kinds = KINDS + (CONFIDENCE,) * args.confidence
    keep_what_is_there(args.out, sources, kinds, args.to)
    model, image_processor = load_for_inference(
        args.model, PartialState().device, args.trust_remote_code, args.subfolder
    )
    inference = inference_from(args)
    classes = Classes([*label_names(model).values()], palette_of(model))
    decoder = decoder_for(model, image_processor)
    predictor = Predictor(model, image_processor, inference, decoder, classes, args.min_confidence)
    record = record_of(args.images, model, inference, args.min_confidence)
    todo = unfinished(sources, args.out, record, kinds)
    skipped: list[str] = []
    for name, source in tqdm(todo.items(), desc="Predicting", unit="img"):
        try:
            predictor.write(args.out, source, files_of(name, source, kinds), record)
        except InputError as error:
            skipped.append(str(error))
            continue
        except RuntimeError as error:  # memory, or a size that the network does not take
            if isinstance(error.__cause__, OSError):
                raise  # the disk
            skipped.append(f"{source} cannot be predicted: {first_sentence(error)}")
            continue
    if skipped and len(skipped) == len(sources):
        others = f" ({len(skipped)} images, none can be predicted)" if len(skipped) > 1 else ""
        raise InputError(skipped[0] + others)
    for reason in skipped:
        print(f"pos-hf predict: skipped: {reason}", file=sys.stderr)
    if args.to is not None:
        annotate(args.out, args.to, sources, classes)
    done = f"{len(todo) - len(skipped)} images predicted"
    places = f": masks in {args.out / 'masks'}, overlays in {args.out / 'overlays'}"
    there = f"; {len(sources) - len(todo)} were there" if len(todo) < len(sources) else ""
    left = f"; {len(skipped)} images left out" if skipped else ""
    print(done + places + there + left)
    return 1 if skipped else 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf predict",
        description="Predict images: DIR/masks gets palette PNGs of class ids, of GeoTIFFs GeoTIFFs, "
        "DIR/overlays pictures. An image that cannot be read is left out (exit code 1); run again, the "
        "command makes what is missing.",
    )
    add_model_arguments(parser)
    parser.add_argument("images", type=Path, help="an image, or a folder that is searched for images")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; existing files are kept")
    group = parser.add_argument_group("for annotators")
    group.add_argument("--to", choices=TOOLS, help="write DIR/TOOL, which that tool imports, as well")
    group.add_argument(
        "--confidence", action="store_true", help="write DIR/confidence, grey pictures of 0 to 255, as well"
    )
    group.add_argument(
        "--min_confidence", type=float, default=0.0, help="pixels below it are 255 (ignored) in the masks"
    )
    add_inference_arguments(parser)
    return parser


def find_images(source: Path) -> dict[str, Path]:
    """The image files under a folder, or the one file given, by the name of their masks.

    What `pos-hf predict` and `pos-hf suggest` wrote into the folder is left out.

    Raises:
        InputError: There is none, or two would share a mask.
    """
    from pos_hf.data.folders import split_pages
    from pos_hf.data.listing import LISTED_SUFFIXES, list_images

    if not source.exists():
        raise InputError(f"there is no image or folder '{source}'")
    if source.is_file():
        found = {source.stem: str(source)}
    else:
        listed = list_images(source)
        found = {id: path for id, path in listed.items() if not is_written(Path(path), source)}
    if not found:
        known = ", ".join(sorted(LISTED_SUFFIXES))
        raise InputError(f"'{source}' holds no image; known suffixes are {known}.")
    return {f"{id}.png": Path(path) for id, path in split_pages(found).items()}


def is_written(picture: Path, root: Path) -> bool:
    """Whether a picture below `root` is of an earlier call, which left its own file beside it."""
    return any(
        picture.relative_to(folder).parts[0] in names and (folder / file).is_file()
        for folder in picture.parents
        if folder.is_relative_to(root)
        for file, names in PICTURES_BESIDE.items()
    )


def keep_what_is_there(out: Path, sources: dict[str, Path], kinds: tuple[str, ...], tool: str | None) -> None:
    """Refuse to replace pictures of another origin, and annotations, which may have been corrected."""
    pictures = [
        out / file
        for name, source in sources.items()
        for file in files_of(name, source, kinds).values()
        if not is_begun(out)
    ]
    keep_existing(pictures + ([] if tool is None else [out / tool]), "give another folder to --out")


def files_of(name: str, source: Path, kinds: tuple[str, ...]) -> dict[str, str]:
    """The files of one image by their kind, inside the output folder; of a GeoTIFF they are GeoTIFFs."""
    from pos_hf.data.rasters import keeps_place

    stem, ending = name.removesuffix(".png"), ".tif" if keeps_place(source) else ".png"
    return {kind: f"{kind}/{stem}{'.png' if kind == 'overlays' else ending}" for kind in kinds}


def is_begun(out: Path) -> bool:
    """Whether a folder holds predictions of this command."""
    return (out / RECORD).is_file()


@dataclass(frozen=True)
class Predictor:
    """Makes the files of one image, see the options of the command."""

    model: "PreTrainedModel"
    image_processor: "BaseImageProcessor"
    inference: "Inference"
    decoder: "RowDecoder"
    classes: "Classes"
    min_confidence: float

    def write(self, out: Path, source: Path, files: dict[str, str], record: dict[str, Any]) -> None:
        """Predict an image and put what is missing in place, the record before it, each whole or not at all.

        Raises:
            InputError: It cannot be read, or is none that the model takes.
            RuntimeError: The network does not take its size, or memory is exhausted.
        """
        from pos_hf.data.rasters import keeps_place

        with written_aside(out) as aside:
            (aside / RECORD).write_text(json.dumps(record, indent=2) + "\n")
            targets = {kind: aside / file for kind, file in files.items()}
            for target in targets.values():
                target.parent.mkdir(parents=True, exist_ok=True)
            (self._geotiffs if keeps_place(source) else self._pictures)(source, targets)
            for kind, file in files.items():
                if (out / file).exists():  # and may have been corrected
                    targets[kind].unlink()

    def _pictures(self, source: Path, targets: dict[str, Path]) -> None:
        import numpy as np
        from PIL import Image

        from pos_hf.evaluation import predict_confident
        from pos_hf.reporting.pictures import mask_picture
        from pos_hf.values import IGNORE_INDEX

        image = read_image(source, self.decoder, self.inference)
        ((ids, confidence),) = predict_confident(self.model, [image], self.image_processor, self.inference)
        ids[confidence < self.min_confidence] = IGNORE_INDEX
        mask_picture(ids, self.classes.palette).save(targets["masks"])
        self._overlay(image, ids).save(targets["overlays"])
        if CONFIDENCE in targets:
            Image.fromarray(np.uint8(255 * confidence)).save(targets[CONFIDENCE])

    def _geotiffs(self, source: Path, targets: dict[str, Path]) -> None:
        from pos_hf.data.images import picture_size
        from pos_hf.evaluation.geotiffs import predict_geotiff, preview
        from pos_hf.reporting.pictures import palette_of_ids

        require_shown_in_parts(source, picture_size({"path": str(source), "bytes": None}), self.inference)
        predict_geotiff(
            self.model,
            source,
            self.decoder,
            self.image_processor,
            self.inference,
            self.min_confidence,
            palette_of_ids(self.classes.palette).tolist(),
            targets["masks"],
            targets.get(CONFIDENCE),
        )
        self._overlay(*preview(source, targets["masks"], self.decoder)).save(targets["overlays"])

    def _overlay(self, image: "Image.Image | np.ndarray", ids: "np.ndarray") -> "Image.Image":
        from pos_hf.reporting.pictures import displayed, overlay, with_legend

        names, palette = list(self.classes.names), [list(color) for color in self.classes.palette]
        return with_legend(overlay(displayed(image), ids, palette), ids, names, palette)


def annotate(out: Path, tool: str, sources: dict[str, Path], classes: "Classes") -> None:
    """Write all masks that are there in the form of an annotation tool, into a folder of its name."""
    from pos_hf.data.annotating import WRITERS, Prediction

    predictions = [
        Prediction(name.removesuffix(".png"), os.path.relpath(source, out / tool), mask)
        for name, source in sources.items()
        if (mask := out / files_of(name, source, ("masks",))["masks"]).exists()
    ]
    with written_aside(out) as aside:
        (aside / tool).mkdir(parents=True)
        WRITERS[tool](aside / tool, predictions, classes)


def record_of(images: Path, model: Any, inference: "Inference", min_confidence: float) -> dict[str, Any]:
    """What decides about the mask of a name; the same in a rerun."""
    from pos_hf.evaluation.loading import weights_fingerprint

    folder = images.parent if images.is_file() else images
    told = {"images": str(folder.resolve()), "weights": weights_fingerprint(model)}
    return json.loads(json.dumps({**told, "min_confidence": min_confidence, **asdict(inference)}))


def unfinished(
    sources: dict[str, Path], out: Path, record: dict[str, Any], kinds: tuple[str, ...]
) -> dict[str, Path]:
    """The images that lack a picture of a kind, made by this model and protocol.

    Raises:
        InputError: The folder's masks are of other images, another model or protocol.
    """
    from pos_hf.data.files import file_of

    if is_begun(out):
        try:
            earlier = json.loads((out / RECORD).read_text())
        except ValueError:
            earlier = None
        if earlier != record:
            raise InputError(
                f"'{out / RECORD}' is of other images, another model or other options, and its masks are "
                "kept: give another folder to --out"
            )
    for name, source in sources.items():
        mask = out / files_of(name, source, ("masks",))["masks"]
        if mask.exists() and mask.stat().st_mtime < os.path.getmtime(file_of(str(source))):
            raise InputError(
                f"'{mask}' is older than its image '{source}' and is kept, though it may be another's: give "
                "another folder to --out"
            )
    return {
        name: source
        for name, source in sources.items()
        if not all((out / file).exists() for file in files_of(name, source, kinds).values())
    }


def read_image(path: Path, decoder: "RowDecoder", inference: "Inference") -> "Image.Image | np.ndarray":
    """The image as the model reads it, turned upright as its EXIF data says.

    Raises:
        InputError: It cannot be read, is not like those the model was trained on, or is too large to be shown
            to the model at once.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # said below, with what helps
        try:
            image = decoder.image({"path": str(path), "bytes": None})
        except InputError as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                raise InputError(
                    f"{path} has more than {2 * MAX_PIXELS / 1e6:.0f} million pixels: cut it into tiles"
                ) from error
            raise
    size = image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])
    require_shown_in_parts(path, size, inference)
    return image


def require_shown_in_parts(path: Path, size: tuple[int, int], inference: "Inference") -> None:
    """Refuse a very large image, given its width and height, without windows.

    Raises:
        InputError: The model would see all of it at once.
    """
    width, height = size
    if inference.window is None and height * width > MAX_PIXELS:
        raise InputError(
            f"{path} has {height * width / 1e6:.0f} million pixels, too many to show the model at once: show "
            "it in parts with --window 512"
        )
