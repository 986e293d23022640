"""The files of a Space that shows a pushed model: the page of `app`, and the package that it runs with."""

import json
from pathlib import Path
from typing import Any

import yaml

from pos_hf.hub import app
from pos_hf.hub.files import Files
from pos_hf.run_folder import Run

GRADIO = "6.31.0"
"""What the page has been tried with."""
REQUIREMENTS = Path(__file__).parent / "templates" / "space_requirements.txt"
SOURCES = (".py", ".j2", ".html", ".css", ".js", ".txt", ".json")


def space_files(run: Run, model: str) -> Files:
    """Everything of a Space for a run whose model is pushed to a repository.

    Args:
        run: that was pushed; of its settings only `trust_remote_code` is told.
        model: `user/name` of its model.

    Returns:
        The page, the package's own source, what both need, and a card without any path of this machine.
    """
    package = Path(__file__).parents[1]
    sources = (path for path in sorted(package.rglob("*")) if path.suffix in SOURCES)
    title = f"{model.rpartition('/')[2]}: try it"
    card = {"title": title, "sdk": "gradio", "sdk_version": GRADIO, "app_file": "app.py", "models": [model]}
    settings: dict[str, Any] = {
        "model": model,
        "trust_remote_code": bool(run.settings.get("model.trust_remote_code", False)),
    }
    return {
        "README.md": f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n".encode(),
        "app.py": Path(app.__file__),
        "requirements.txt": REQUIREMENTS,
        app.SETTINGS: (json.dumps(settings) + "\n").encode(),
        **{f"pos_hf/{path.relative_to(package).as_posix()}": path for path in sources},
    }
