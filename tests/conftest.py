"""Fixtures every test shares: one thread, a fixed seed, fresh Accelerate singletons, no time limit."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# before torch is imported; the processes that tests start inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from hypothesis import settings

ROOT = Path(__file__).parent.parent

settings.register_profile("any load", deadline=None)  # a time for each example, which other work stretches
settings.load_profile("any load")


def pytest_configure() -> None:
    """Look for no garbage while the tests and all that they import are read."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests: one that comes last would run while the other processes idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What was read stays: a full collection, which accelerate asks for often, need not search it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def pinned_randomness() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def fresh_accelerate_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()


@pytest.fixture(scope="session")
def camvid() -> Path:
    """The CamVid folder, which is not ours to ship: tests that use it skip where it is absent."""
    folder = Path(os.environ.get("POS_HF_CAMVID", ROOT / ".." / "shared" / "data" / "camvid"))
    if not (folder / "id2label.json").exists():
        pytest.skip("CamVid is not on this machine")
    return folder
