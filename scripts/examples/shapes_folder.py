"""Write the generated `shapes` as a folder of images and masks, to try the layout of your own data with.

python scripts/examples/shapes_folder.py my_data
"""

import json
import sys
from pathlib import Path

from pos_hf import DataArguments, load_data


def main(folder: Path) -> None:
    """Write images, masks, unlabeled images, a test set and the class names into a new folder."""
    data = load_data(DataArguments(dataset="shapes"))
    places = {
        "images": (data.labeled, "image"),
        "masks": (data.labeled, "mask"),
        "unlabeled": (data.unlabeled, "image"),
        "test/images": (data.test, "image"),
        "test/masks": (data.test, "mask"),
    }
    for place, (rows, column) in places.items():
        (folder / place).mkdir(parents=True)
        for row in rows.select_columns(["id", column]):
            row[column].save(folder / place / f"{row['id']}.png")
    (folder / "id2label.json").write_text(json.dumps(data.id2label, indent=2))
    counts = f"{len(data.labeled)} labeled, {len(data.unlabeled)} unlabeled and {len(data.test)} test images"
    print(f"{counts} in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
