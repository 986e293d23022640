"""The documents and examples hold: links lead somewhere, named files exist, every block runs or parses."""

import argparse
import json
import re
import runpy
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser
from transformers import AutoModelForSemanticSegmentation

from pos_hf.balancing import Gramian
from pos_hf.cli.main import COMMANDS, main
from pos_hf.data import shapes
from pos_hf.runs.config import parse_config
from pos_hf.runs.recipes import recipe_file, recipes
from tests.launching import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = ROOT / "scripts" / "examples"
PLACES = ("configs", "scripts", "Makefile")
SHORT = "max_steps=2, use_cpu=True, save_strategy='no'"

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(document: Path, *languages: str) -> list[str]:
    """The contents of a document's fenced blocks in some languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), flags=re.S | re.M)
    return [content for language, content in found if language in languages]


def prose(document: Path) -> str:
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.S | re.M)


def anchors(document: Path) -> set[str]:
    """What a link's # can name: the headings, as the site and the usual code hosts spell them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), flags=re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder as the quickstart leaves it, with few images and after few steps."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in PLACES:
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(shapes, "NUM_UNLABELED", 16)
        patch.setattr(shapes, "NUM_TEST", 8)
        runpy.run_path(str(EXAMPLES / "shapes_folder.py"))["main"](Path("my_data"))
        for document in DOCUMENTS:
            for block in blocks(document, "yaml"):
                if name := re.match(r"# ([\w/]+\.yaml)", block):
                    (folder / name[1]).write_text(block)
        few = ["--max_steps", "2", "--use_cpu", "--save_strategy", "no", "--eval_strategy", "no"]
        assert main(["train", "my_data.yaml", *few]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_workplace(request, monkeypatch) -> None:
    if "workplace" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("workplace"))
        monkeypatch.setattr(shapes, "NUM_UNLABELED", 16)
        monkeypatch.setattr(shapes, "NUM_TEST", 8)


@every_document
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        page = document.parent / path if path else document
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


@every_document
def test_named_files_exist(document):
    named = re.findall(
        r"(?<![\w/.])(?:configs|scripts|pos_hf|tests|docs|model_cards)/[\w./*-]*", document.read_text()
    )
    for name in named:
        assert list(ROOT.glob(name.rstrip("/."))), name


@every_document
def test_every_block_is_of_a_kind_that_is_checked(document):
    kinds = set(re.findall(r"^```(\w*)\n.*?^```$", document.read_text(), flags=re.S | re.M))
    assert kinds <= {"python", "sh", "yaml", "text"}


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if blocks(d, "python")], ids=lambda path: path.name
)
def test_python_blocks_run(document, workplace):
    names: dict = {}
    for block in blocks(document, "python"):
        exec(re.sub(r"max_steps=\d+", SHORT, block), names)


@every_document
def test_settings_are_known(document, tmp_path):
    for block in blocks(document, "yaml"):
        (tmp_path / "config.yaml").write_text(block)
        if "arms" not in yaml.safe_load(block):  # a study's are checked with it
            parse_config(tmp_path / "config.yaml", ["--use_cpu"])


@every_document
def test_commands_are_known(document, workplace, monkeypatch):
    for block in blocks(document, "sh"):
        for line in block.replace("\\\n", "").splitlines():
            check_command(shlex.split(line, comments=True), monkeypatch)


class Parsed(Exception):
    """Stops a command once it has read its command line."""


def check_command(words: list[str], monkeypatch) -> None:
    """Read a command line with the parser that will; nothing is run."""
    match words:
        case []:
            pass
        case ["pos-hf", command, *rest]:
            check_pos_hf(command, rest, monkeypatch)
        case ["accelerate", "launch", *rest]:
            parsed = launch_command_parser().parse_args(rest)
            if parsed.module:
                assert parsed.training_script == "pos_hf"
                check_pos_hf(parsed.training_script_args[0], parsed.training_script_args[1:], monkeypatch)
            else:
                check_script(parsed.training_script, parsed.training_script_args, monkeypatch)
        case ["torchrun", *rest] if "-m" in rest:
            parsed = get_args_parser().parse_args(rest)
            assert (parsed.module, parsed.training_script) == (True, "pos_hf")
            check_pos_hf(parsed.training_script_args[0], parsed.training_script_args[1:], monkeypatch)
        case ["torchrun", "--nproc_per_node", number, script, *rest]:
            assert number.isdigit()
            check_script(script, rest, monkeypatch)
        case ["python", script, *rest]:
            check_script(script, rest, monkeypatch)
        case ["make", target]:
            assert re.search(rf"^{target}:", Path("Makefile").read_text(), flags=re.M), target
        case ["pip" | "source" | "pre-commit", *_]:
            pass
        case _:
            raise AssertionError(f"nothing checks {shlex.join(words)}")


def check_script(script: str, arguments: list[str], monkeypatch) -> None:
    assert Path(script).is_file(), script
    if script == "scripts/train.py":
        check_pos_hf("train", arguments, monkeypatch)


def check_pos_hf(command: str, arguments: list[str], monkeypatch) -> None:
    assert command in COMMANDS
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser, *given):
        raise Parsed(*parse(parser, *given))

    with monkeypatch.context() as patch, pytest.raises(Parsed) as stopped:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
        import_module(f"pos_hf.cli.{command.replace('-', '_')}").main(arguments)
    options, rest = stopped.value.args
    if command == "train" and (name := str(options.config)) in recipes():
        parse_config(recipe_file(name), [*rest, "--use_cpu"])
    elif command in ("train", "check-data") and Path(options.config).suffix == ".yaml":
        parse_config(Path(options.config), [*rest, "--use_cpu"])
    else:
        assert not rest, rest


def test_what_the_readme_does_with_a_trained_model_works_as_printed(workplace):
    done = []
    for line in "".join(blocks(ROOT / "README.md", "sh")).splitlines():
        match shlex.split(line, comments=True):
            case ["pos-hf", "check-data" | "evaluate" | "predict" | "report" as command, *arguments]:
                assert main([command, *arguments]) == 0
                done.append(command)
    assert done == ["check-data", "evaluate", "predict", "report"]


def test_the_strategy_of_the_documentation_is_one():
    (block,) = blocks(ROOT / "docs" / "strategies.md", "python")
    names: dict = {}
    exec(block, names)
    numbers = torch.tensor([1.0, 4.0, -1.0]).double().unbind()
    assert [weight.item() for weight in names["trust_the_labels"](Gramian(*numbers))] == [1.0, 0.0]


def test_the_figures_are_those_of_the_code(tmp_path):
    runpy.run_path(str(ROOT / "scripts" / "draw_figures.py"))["main"](tmp_path)
    for drawn in tmp_path.iterdir():
        assert drawn.read_bytes() == (ROOT / "docs" / "figures" / drawn.name).read_bytes(), (
            "run python scripts/draw_figures.py"
        )


def test_the_page_of_settings_is_that_of_the_code():
    page = runpy.run_path(str(ROOT / "scripts" / "settings_page.py"))["page"]()
    assert page == (ROOT / "docs" / "settings.md").read_text(), "run python scripts/settings_page.py"


def test_the_notebook_runs(workplace):
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert cells[0].endswith("%pip install --quiet ../..") and f"git+{repository}\n" in cells[0]
    names: dict = {}
    for cell in cells[1:]:
        exec(re.sub(r"max_steps=\d+", SHORT, cell), names)
    assert not any(cell.get("outputs") for cell in notebook["cells"])


def test_the_addresses_are_those_of_pyproject():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["repository-code"], citation["url"]) == (urls["Repository"], urls["Documentation"])


def test_finetuning_goes_on_from_the_weights_with_other_classes(workplace, tmp_path):
    folder = tmp_path / "other_data"
    for place in ("images", "masks", "unlabeled"):
        (folder / place).mkdir(parents=True)
        for path in sorted((workplace / "my_data" / place).iterdir()):
            (folder / place / path.name).symlink_to(path)
    (folder / "id2label.json").write_text(json.dumps({id: f"class_{id}" for id in range(7)}))
    places = ["runs/my_data", str(folder), str(tmp_path / "run")]
    options = "--max_steps 1 --learning_rate 1e-12 --crop_size 32 --use_cpu --per_device_train_batch_size 2"
    runpy.run_path(str(EXAMPLES / "finetune_custom.py"))["main"]([*places, *options.split()])

    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run")
    assert model.config.id2label == {id: f"class_{id}" for id in range(7)}
    before = load_file(workplace / "runs" / "my_data" / "model.safetensors")
    kept = {name for name, value in model.state_dict().items() if value.shape == before[name].shape}
    assert len(before) - len(kept) == 2  # weight and bias of the last layer
    for name in kept:
        torch.testing.assert_close(model.state_dict()[name], before[name], rtol=0, atol=1e-9)


def test_the_readme_is_short():
    """One page, with a picture in its first screen."""
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700
    assert "](docs/figures/" in "".join(text.splitlines(keepends=True)[:8])
