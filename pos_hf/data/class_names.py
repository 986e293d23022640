"""The names of the classes by id, from the config or a JSON file. Benchmarks' are in benchmarks.py."""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download

from pos_hf.data.arguments import DataArguments
from pos_hf.errors import InputError

EXAMPLE = '{"0": "background", "1": "cat"}'


def read_id2label(args: DataArguments) -> dict[int, str]:
    """Class names by id, in order: `class_names`, or the file `id2label` of the dataset's folder or Hub
    repository.

    Raises:
        InputError: There are none, or their ids are not 0 to C-1.
    """
    if args.class_names is not None:
        return dict(enumerate(args.class_names))
    path = Path(args.dataset) / args.id2label
    if args.dataset_format == "huggingface" and not Path(args.dataset).is_dir():
        path = Path(hf_hub_download(args.dataset, args.id2label, repo_type="dataset"))
    if not path.is_file():
        raise InputError(
            f"the class names {path} do not exist: write a JSON file like {EXAMPLE}, or list `class_names`"
        )
    try:
        names = {int(id): str(label) for id, label in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} does not hold a JSON object like {EXAMPLE}: {error}") from error
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path} has the ids {sorted(names)}, but class ids are 0, 1, 2, ... without gaps")
    return dict(sorted(names.items()))
