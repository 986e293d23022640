"""What a run's log and scores show, as pictures and one HTML page. Needs neither torch nor the model."""

from typing import TYPE_CHECKING, Any

from pos_hf.reporting.intervals import worst_images
from pos_hf.reporting.pictures import mask_picture, overlay, with_legend, write_examples
from pos_hf.run_folder import EXAMPLES, WORST, Run, read_runs

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Load the report on first use: its figures need matplotlib, which training and pushing do not."""
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pos_hf.reporting.report import write_report

    return write_report
