"""Write the card of every recipe: configs/A/B.yaml -> model_cards/A/B.md.

usage: python scripts/model_cards.py
"""

import itertools
import json
from pathlib import Path

import yaml
from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pos_hf.hub.citations import DATASETS, references
from pos_hf.models.presets import PRESETS

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
# weights that are made on the user's machine, by `pos-hf convert` or a script of scripts/examples/
LOCAL_WEIGHTS = ("pretrained/", "models/")
LOCAL_SETTINGS = ("dataset", "output_dir", "dataloader_num_workers")


def recipes() -> list[Path]:
    """The shipped recipes, as paths in the repository; a study is a grid of them and has no card."""
    paths = (path.relative_to(ROOT) for path in sorted((ROOT / "configs").rglob("*.yaml")))
    return [path for path in paths if path.parts[1] != "studies"]


def card_path(recipe: Path) -> Path:
    """Where a recipe's card lies."""
    return CARDS / recipe.relative_to("configs").with_suffix(".md")


def card(recipe: Path) -> str:
    """The text of a recipe's card.

    Args:
        recipe: path in the repository.
    """
    text = (ROOT / recipe).read_text()
    settings = yaml.safe_load(text)
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    weights = settings.get("backbone_weights", settings["model"])
    is_local = weights in PRESETS or weights.startswith(LOCAL_WEIGHTS)
    method, unlabeled = settings["method"], settings["method"] != "supervised"
    strategy = settings.get("strategy", "pos") if unlabeled else "supervised"
    papers = references(strategy, method, PRESETS.get(settings["model"], {"model_type": ""}))
    metadata = ModelCardData(
        base_model=None if is_local else weights,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", *["semi-supervised-learning"] * unlabeled, "pos_hf", method],
    )
    environment = Environment(
        loader=FileSystemLoader(CARDS), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("recipe.md.j2").render(
        card_data=metadata.to_yaml(),
        name=" ".join(recipe.with_suffix("").parts[1:]),
        config=recipe.as_posix(),
        up="../" * (len(recipe.parts) - 1),
        comment="\n".join(line.removeprefix("#").removeprefix(" ") for line in comment),
        method=method,
        strategy=strategy,
        unlabeled=unlabeled,
        settings={
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in settings.items()
            if key not in LOCAL_SETTINGS
        },
        references=[*papers, *DATASETS.get(recipe.parts[1], [])],
    )


def main() -> None:
    for recipe in recipes():
        path = card_path(recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(card(recipe))


if __name__ == "__main__":
    main()
