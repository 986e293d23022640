"""The report's made-up run."""

from tests.reporting.conftest import make_run

__all__ = ["make_run"]
