"""How the two losses are made: one file a method, each a generator of loss terms. No training loop here."""

from typing import Any

from pos_hf.methods.base import Batch, LossTerm, Method, build, predict_logits
from pos_hf.methods.fixmatch import FixMatch
from pos_hf.methods.supervised import Supervised
from pos_hf.methods.unimatch_v2 import UniMatchV2

METHODS: dict[str, type[Method]] = {
    "fixmatch": FixMatch,
    "supervised": Supervised,
    "unimatch_v2": UniMatchV2,
}


def get_method(name: str, **options: Any) -> Method:
    """The method called `name` with its options.

    Raises:
        InputError: Unknown name or option; the message names the nearest known one.
    """
    method: Method = build("method", METHODS, name, options)
    return method


__all__ = ["METHODS", "Batch", "LossTerm", "Method", "get_method", "predict_logits"]
