"""How the two losses are made: one file a method, each a generator of loss terms. No training loop here."""

from typing import Any

from pos_hf.methods.augseg import AugSeg
from pos_hf.methods.base import Batch, LossTerm, Method, predict_logits
from pos_hf.methods.cps import CPS, StudentPair
from pos_hf.methods.fixmatch import FixMatch
from pos_hf.methods.mean_teacher import CutMixSeg, MeanTeacher
from pos_hf.methods.pseudo_labels import PseudoLabelMethod, PseudoLabels, pseudo_label_loss
from pos_hf.methods.supervised import Supervised
from pos_hf.methods.u2pl import U2PL
from pos_hf.methods.unimatch_v1 import UniMatchV1
from pos_hf.methods.unimatch_v2 import UniMatchV2
from pos_hf.named import build

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "cutmix_seg": CutMixSeg,
    "fixmatch": FixMatch,
    "unimatch_v1": UniMatchV1,
    "unimatch_v2": UniMatchV2,
    "cps": CPS,
    "u2pl": U2PL,
    "augseg": AugSeg,
}


def get_method(name: str, **options: Any) -> Method:
    """The method called `name` with its options.

    Raises:
        InputError: Unknown name or option; the message names the nearest known one.
    """
    return build("method", METHODS, {"name": name, **options})


__all__ = [
    "CPS",
    "METHODS",
    "U2PL",
    "AugSeg",
    "Batch",
    "CutMixSeg",
    "FixMatch",
    "LossTerm",
    "MeanTeacher",
    "Method",
    "PseudoLabelMethod",
    "PseudoLabels",
    "StudentPair",
    "Supervised",
    "UniMatchV1",
    "UniMatchV2",
    "get_method",
    "predict_logits",
    "pseudo_label_loss",
]
