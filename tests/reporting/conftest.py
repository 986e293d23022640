"""The made-up run as a fixture."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .fake_run import fake_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, seed=0, **options: fake_run(tmp_path / name, seed, **options)
