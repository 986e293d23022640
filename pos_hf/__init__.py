"""Semi-supervised semantic segmentation with balanced gradients (POS+MEO) on the Hugging Face Trainer.

Importing the package is cheap: public names load on first use, and the models are registered with the Auto
classes of transformers at the moment those are imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._registration import register_with_transformers
from .version import __version__

if TYPE_CHECKING:
    from .data import DataArguments, PairedDataset, Views, load_data
    from .models import build_model
    from .training import POSConfig, POSTrainer

_ROOMS = {
    "DataArguments": "data",
    "POSConfig": "training",
    "POSTrainer": "training",
    "PairedDataset": "data",
    "Views": "data",
    "build_model": "models",
    "load_data": "data",
}

__all__ = [
    "DataArguments",
    "POSConfig",
    "POSTrainer",
    "PairedDataset",
    "Views",
    "__version__",
    "build_model",
    "load_data",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


register_with_transformers()
