"""What a run's log and scores show, as pictures and one HTML page. Needs neither torch nor the model."""

from pos_hf.reporting.history import EXAMPLES, WORST, Run, read_runs
from pos_hf.reporting.intervals import worst_images
from pos_hf.reporting.pictures import mask_picture, overlay, with_legend, write_examples
from pos_hf.reporting.report import write_report

__all__ = [
    "EXAMPLES",
    "WORST",
    "Run",
    "mask_picture",
    "overlay",
    "read_runs",
    "with_legend",
    "worst_images",
    "write_examples",
    "write_report",
]
