"""Many runs under one question: what is planned, how it is run, and the table it ends in."""

from pos_hf.studies.plan import PlannedRun, Study, label_budget, read_study
from pos_hf.studies.runner import run_study
from pos_hf.studies.scores import read_study_scores
from pos_hf.studies.tables import write_tables

__all__ = [
    "PlannedRun",
    "Study",
    "label_budget",
    "read_study",
    "read_study_scores",
    "run_study",
    "write_tables",
]
