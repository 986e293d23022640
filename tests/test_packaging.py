"""What is built and installed: light to import, complete, and nothing of the tests."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import pos_hf
from tests.launching import ROOT

HEAVY = {"torch", "transformers", "datasets", "accelerate", "numpy", "PIL", "matplotlib"}


def run(*command: object, cwd: Path = ROOT) -> str:
    result = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.mark.parametrize("statement", ["import pos_hf", "from pos_hf.cli.main import main; main(['--help'])"])
def test_importing_is_cheap(statement):
    loaded = run(sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)").split()
    assert not HEAVY & set(loaded)


def build(kind: str, source: Path, target: Path) -> Path:
    """Run the build backend as pip does; kind is `wheel` or `sdist`."""
    code = f"import hatchling.build as backend, sys; print(backend.build_{kind}(sys.argv[1]))"
    return target / run(sys.executable, "-c", code, target, cwd=source).split()[-1]


@pytest.mark.slow
def test_sdist_and_wheel_are_complete_and_install(tmp_path):
    with tarfile.open(build("sdist", ROOT, tmp_path)) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for place in (
        "tests",
        "docs",
        "configs",
        "scripts",
        "Makefile",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
    ):
        assert (unpacked / place).exists(), place

    wheel = build("wheel", unpacked, tmp_path)  # from the sdist: it holds all that a build needs
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    shipped = {name for name in names if not name.parts[0].endswith(".dist-info")}
    files = (path for path in (ROOT / "pos_hf").rglob("*") if path.is_file())
    own = {path.relative_to(ROOT) for path in files if "__pycache__" not in path.parts}
    recipes = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.*")}
    assert shipped == own | {Path("pos_hf/recipes") / path for path in recipes}
    assert Path("pos_hf/py.typed") in shipped
    assert Path("pos_hf/hub/templates/card.md.j2") in shipped

    # a new environment that sees this one's dependencies, but not its pos_hf
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    place, version = run(
        python, "-c", "import pos_hf; print(pos_hf.__file__, pos_hf.__version__)", cwd=tmp_path
    ).split()
    assert place.startswith(packages)
    assert version == pos_hf.__version__
    # what a pip user types first, in an empty folder
    pos_hf_command, empty = environment / "bin" / "pos-hf", tmp_path / "empty"
    empty.mkdir()
    assert "0 errors" in run(pos_hf_command, "check-data", "shapes", cwd=empty)
    assert "pascal/unimatch_v2/dinov2_small" in run(pos_hf_command, "recipes", cwd=empty)
    few = ("--max_steps", 1, "--num_unlabeled", 8, "--num_test", 2, "--use_cpu")
    assert "report.html" in run(pos_hf_command, "demo", *few, cwd=empty)
    trained = run(pos_hf_command, "train", "shapes", "--output_dir", "run", *few, cwd=empty)
    assert "test mIoU" in trained and "pos-hf predict run" in trained
    run(pos_hf_command, "report", "run", "--out", "page.html", cwd=empty)
    assert (empty / "page.html").is_file() and (empty / "demo" / "report.html").is_file()


def test_the_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["preferred-citation"]["title"] in " ".join((ROOT / "README.md").read_text().split())
