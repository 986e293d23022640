"""The cards of the shipped recipes: those that the script writes now, and honest."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard

from scripts.model_cards import CARDS, ROOT, card, card_path, recipes
from tests.hub.server import metadata_errors


def test_every_recipe_has_its_card_and_every_card_its_recipe() -> None:
    written = {path for path in CARDS.rglob("*.md") if path != CARDS / "README.md"}
    assert written == {card_path(recipe) for recipe in recipes()}
    assert len(written) > 15


@pytest.mark.parametrize("recipe", recipes(), ids=str)
def test_a_recipes_card_says_what_the_recipe_says_and_no_number_of_a_result(recipe) -> None:
    text = card_path(recipe).read_text()
    assert text == card(recipe), "run python scripts/model_cards.py"
    assert metadata_errors(text) == []
    assert "Not trained yet" in text and "mIoU" not in text
    assert ModelCard(text).data.eval_results is None
    settings = yaml.safe_load((ROOT / recipe).read_text())
    assert f"| method | `{settings['method']}` |" in text
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (card_path(recipe).parent / target).exists(), target


def test_the_metadata_check_of_these_tests_can_fail() -> None:
    assert metadata_errors("no metadata")
    assert metadata_errors("---\nlicense: nonsense\n---\n")
    assert metadata_errors("---\ntags:\n- 3\n---\n")
    lacking = {"model-index": [{"results": [{"task": {}, "dataset": {}, "metrics": [{}]}]}]}
    assert len(metadata_errors(f"---\n{yaml.safe_dump(lacking)}---\n")) == 2
