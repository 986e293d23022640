"""What `push_to_hub` of the Trainer sends: files that `pos_hf.hub` allows in place of the whole folder."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from transformers.utils.hub import hf_api

from pos_hf.files import write_text
from pos_hf.hub import evaluation_results, model_card, run_facts, run_files, upload
from pos_hf.run_folder import CARD_FILE, Run, read_runs

from .arguments import POSConfig


def push(
    args: POSConfig,
    facts: dict[str, Any],
    repository: str,
    *,
    message: str,
    token: str | None,
    revision: str | None,
    license: str | None,
) -> Future:
    """Upload a finished run with its card, and its scores where its folder holds any, in the background.

    Args:
        args: of the run; its `hub_token` and `hub_revision` stand in for what is None.
        facts: what is known of the run where its folder holds no run.json.
        repository: its full name.
        message: of the one commit.
        token: of the Hub.
        revision: branch.
        license: the Hub's identifier, for the card.

    Returns:
        The Future of the repository's address.
    """
    (run,) = read_runs([Path(args.output_dir)])
    facts = _facts_of(run, facts)
    card = model_card(run, facts, repository, license)
    files = run_files(run.folder, card, evaluation_results(run, facts))
    token, revision = token or args.hub_token, revision or args.hub_revision
    # the Hub library's one background thread keeps commits in their order
    return hf_api().run_as_future(upload, files, repository, message=message, token=token, revision=revision)


def write_card(folder: Path, facts: dict[str, Any], repository: str, license: str | None) -> None:
    """Write the card into a run's folder, which holds a saved model and state. Arguments as of `push`."""
    (run,) = read_runs([folder])
    write_text(run.folder / CARD_FILE, model_card(run, _facts_of(run, facts), repository, license))


def _facts_of(run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    return run_facts(run) if "facts.method" in run.settings else facts
