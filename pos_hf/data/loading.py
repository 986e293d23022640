"""The one way into the data: options in, checked roles out. Each source is in its own file."""

from pos_hf.data.arguments import DataArguments
from pos_hf.data.folders import load_folders
from pos_hf.data.segmentation_data import SegmentationData
from pos_hf.data.shapes import load_shapes
from pos_hf.data.splits import assign_roles
from pos_hf.data.validation import validate


def load_data(args: DataArguments) -> SegmentationData:
    """Load a dataset, assign its roles and validate it.

    Raises:
        InputError: The data cannot be trained on as it is.
    """
    data = load_shapes(args) if args.dataset == "shapes" else load_folders(args)
    data = assign_roles(data, args)
    validate(data)
    return data
