"""Resize a folder of images and masks once, so that every epoch reads small files.

    python scripts/examples/resize_folder.py ../shared/data/camvid data/camvid_240x180 240 180

Images are resized bicubically, files below a folder called `masks` by nearest neighbour; both become PNG.
Other files (names, lists) are copied.
"""

import shutil
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

PICTURES = {".png", ".jpg", ".jpeg"}


def main(source: Path, target: Path, width: int, height: int) -> None:
    """Write a resized copy of `source` to `target`; sizes in pixels."""
    for file in tqdm([path for path in sorted(source.rglob("*")) if path.is_file()], unit="file"):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() not in PICTURES:
            shutil.copyfile(file, copy)
            continue
        nearest = "masks" in file.relative_to(source).parts
        with Image.open(file) as picture:
            picture.draft("RGB", (2 * width, 2 * height))  # a large JPEG is decoded no finer than needed
            resized = picture.resize(
                (width, height), Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
            )
        resized.save(copy.with_suffix(".png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
