"""What of a run goes to the Hub: its model card, the files that are allowed, and sending them."""

from pos_hf.hub.files import Files, run_files
from pos_hf.hub.model_card import evaluation_results, model_card, run_facts, write_model_card
from pos_hf.hub.push import check_repository, hub_errors, upload

__all__ = [
    "Files",
    "check_repository",
    "evaluation_results",
    "hub_errors",
    "model_card",
    "run_facts",
    "run_files",
    "upload",
    "write_model_card",
]
