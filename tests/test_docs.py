"""The documents' Python blocks run as printed, and their local links lead somewhere."""

import re

import pytest

from pos_hf.balancing import Gramian
from tests.launching import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_strategy_of_the_documentation_is_one():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "strategies.md").read_text(), flags=re.S)
    names: dict = {}
    exec(block, names)
    import torch

    numbers = torch.tensor([1.0, 4.0, -1.0]).double().unbind()
    assert [weight.item() for weight in names["trust_the_labels"](Gramian(*numbers))] == [1.0, 0.0]


def test_the_readme_trains_in_python(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    (block,) = [block for block in blocks if "POSTrainer" in block]
    short = 'max_steps=2, use_cpu=True, save_strategy="no")'
    assert "max_steps=100)" in block
    monkeypatch.chdir(tmp_path)
    exec(block.replace("max_steps=100)", short), {})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
