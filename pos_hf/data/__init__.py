"""Rows, roles, views and batches of a segmentation dataset. Knows nothing of networks or training."""

from pos_hf.data.arguments import DataArguments
from pos_hf.data.batches import PairedDataset, PairSampler, collate
from pos_hf.data.loading import load_data
from pos_hf.data.segmentation_data import SegmentationData, voc_palette
from pos_hf.data.validation import validate
from pos_hf.data.views import Views
from pos_hf.values import IGNORE_INDEX

__all__ = [
    "IGNORE_INDEX",
    "DataArguments",
    "PairSampler",
    "PairedDataset",
    "SegmentationData",
    "Views",
    "collate",
    "load_data",
    "validate",
    "voc_palette",
]
