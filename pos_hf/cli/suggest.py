"""`pos-hf suggest MODEL IMAGES --out DIR`: which unlabeled images to label next."""

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pos_hf.cli.parsing import (
    CommandParser,
    add_inference_arguments,
    add_model_arguments,
    importing,
    inference_from,
)
from pos_hf.cli.predict import LIST, SHEET, find_images, read_image
from pos_hf.errors import InputError, first_sentence
from pos_hf.files import keep_existing, written_aside
from pos_hf.text import csv_cell

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from pos_hf.evaluation.suggestion import Doubt

TABLE = "suggested.csv"


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0, or 1 where an image had to be left out.

    Raises:
        InputError: There are fewer images than asked for, or files of an earlier call would be replaced.
    """
    args = parser().parse_args(argv)

    with importing():
        import numpy as np
        from accelerate import PartialState
        from tqdm.auto import tqdm

        from pos_hf.evaluation import label_names, load_for_inference, palette_of, predict_probabilities
        from pos_hf.evaluation.loading import decoder_for
        from pos_hf.evaluation.suggestion import choose, doubt_of, worth
        from pos_hf.reporting.suggestion import Suggestion, contact_sheet

    sources = waiting(find_images(args.images), args.exclude)
    require_enough(args.count, len(sources))
    keep_existing([args.out / name for name in (LIST, TABLE, SHEET)], "give another folder to --out")
    model, image_processor = load_for_inference(
        args.model, PartialState().device, args.trust_remote_code, args.subfolder
    )
    inference = inference_from(args)
    decoder = decoder_for(model, image_processor)

    def predicted(source: Path) -> "tuple[Image.Image | np.ndarray, Tensor]":
        image = read_image(source, decoder, inference)
        (probabilities,) = predict_probabilities(model, [image], image_processor, inference)
        return image, probabilities[0]

    doubts = {}
    for id, source in tqdm(sources.items(), desc="Looking", unit="img"):
        try:
            doubts[id] = doubt_of(predicted(source)[1])
        except (InputError, RuntimeError) as error:
            print(f"pos-hf suggest: skipped: {source}: {first_sentence(error)}", file=sys.stderr)
    require_enough(args.count, len(doubts))
    ids, names = list(doubts), list(label_names(model).values())
    worth_N = worth(list(doubts.values()))
    chosen = choose(worth_N, np.stack([doubt.layout for doubt in doubts.values()]), args.count)
    ranked = {ids[i]: float(worth_N[i]) for i in chosen}
    # one image's probabilities at a time
    suggestions = (Suggestion(id, value, *predicted(sources[id])) for id, value in ranked.items())
    with written_aside(args.out) as aside:
        (aside / LIST).write_text("".join(f"{id}\n" for id in ranked))
        write_table(aside / TABLE, ranked, doubts, names)
        contact_sheet(suggestions, palette_of(model)).save(aside / SHEET)
    print(f"{args.count} of {len(doubts)} images: ids in {args.out / LIST}, pictures in {args.out / SHEET}")
    return 1 if len(doubts) < len(sources) else 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf suggest",
        description="Rank unlabeled images by what a label is worth: DIR gets their ids as a list file, a "
        "table, and a sheet of pictures.",
    )
    add_model_arguments(parser)
    parser.add_argument("images", type=Path, help="a folder that is searched for images")
    parser.add_argument("--count", type=int, default=20, help="images to choose (default: 20)")
    parser.add_argument("--exclude", type=Path, help="list file of ids that are labeled already")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; existing files are kept")
    add_inference_arguments(parser)
    return parser


def write_table(file: Path, ranked: dict[str, float], doubts: "dict[str, Doubt]", names: list[str]) -> None:
    """Write rank, id, worth and each class's part of the doubt."""
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["rank", "id", "worth", *(f"doubt_{name}" for name in names)])
        for rank, (id, value) in enumerate(ranked.items(), 1):
            parts = (f"{part:.4g}" for part in doubts[id].entropy)
            rows.writerow([rank, csv_cell(id), f"{value:.4g}", *parts])


def require_enough(count: int, available: int) -> None:
    """Refuse to choose more images than there are."""
    if available < count:
        raise InputError(
            f"--count asks for {count} images, and {available} can be chosen from: ask for fewer"
        )


def waiting(sources: dict[str, Path], exclude: Path | None) -> dict[str, Path]:
    """The images by id, without those of a list.

    Raises:
        InputError: There is no such list, it is no text, or it names none of the images.
    """
    by_id = {name.removesuffix(".png"): source for name, source in sources.items()}
    if exclude is None:
        return by_id

    from pos_hf.data.folders import read_lines

    if not exclude.is_file():
        raise InputError(f"there is no list file {exclude}")
    excluded = set(read_lines(exclude))
    if not excluded & set(by_id):
        raise InputError(f"{exclude} names none of the images, whose ids are like '{next(iter(by_id))}'")
    return {id: source for id, source in by_id.items() if id not in excluded}
