"""`pos-hf train CONFIG [--key value ...]`: a config, folder or recipe in, a finished run folder out."""

import argparse
import tempfile
from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing
from pos_hf.errors import InputError

EPILOG = """\
The keys people change most (a config file holds them as `key: value`; the command line wins):

  --dataset         `shapes`, or the folder of your images
  --labeled_ids     file that lists the labeled images of a folder
  --model           a preset such as dinov2_dpt_small, or the folder or Hub id of a model
  --method          supervised, fixmatch, unimatch_v2, ...
  --strategy        uniform, fixed, pos, pcgrad, ...
  --strategy_options '{"min_weight": 0}'
  --crop_size       side of the training crop in pixels
  --max_steps       optimizer steps (or --num_train_epochs)
  --learning_rate   of the backbone; the head's is --head_learning_rate_multiplier times it
  --output_dir      folder of the run
  --resume_from_checkpoint   a checkpoint folder, or `latest`, which begins where there is none yet

Every field of POSConfig (all of transformers' TrainingArguments among them), DataArguments and ModelArguments
is a key. Several processes: `accelerate launch -m pos_hf train CONFIG ...`.
"""


def main(argv: list[str]) -> int:
    """Train as a config says.

    Args:
        argv: the config file and overrides.

    Returns:
        0.

    Raises:
        InputError: the config or the data cannot be used; nothing has been trained or written.
    """
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help"):
        # or a value of the command line would be taken for the config
        raise InputError(
            f"{argv[0]} comes before the config: name a config file, a folder of images, a recipe or "
            "`shapes` first, as in `pos-hf train shapes --max_steps 100`"
        )
    arguments, overrides = parser().parse_known_args(argv)

    with importing():
        from pos_hf.runs.config import CONFIG_SUFFIXES, parse_config
        from pos_hf.runs.recipes import recipe_file
        from pos_hf.runs.train import run_training

    config = Path(arguments.config)
    is_data = config.is_dir() or config.suffix in (".zip", ".tar") or arguments.config == "shapes"
    if config.suffix not in CONFIG_SUFFIXES and is_data:
        return _train_folder(config, overrides)
    if config.suffix not in CONFIG_SUFFIXES and not config.exists():
        config = recipe_file(arguments.config)
    run_training(*parse_config(config, overrides))
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf train",
        description="Train a segmentation model on labeled and unlabeled images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", help="YAML file of the run, a folder of images, or a recipe's name")
    return parser


def _train_folder(folder: Path, overrides: list[str]) -> int:
    """Train as a look at a folder suggests; what was chosen is shown, and kept in the run."""
    from pos_hf.files import write_text
    from pos_hf.run_folder import PROPOSAL_FILE
    from pos_hf.runs.config import data_options, parse_config
    from pos_hf.runs.proposal import propose_config
    from pos_hf.runs.train import run_training

    text = propose_config(folder, **data_options(overrides))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / PROPOSAL_FILE
        file.write_text(text)
        arguments = parse_config(file, overrides)
    if arguments[2].should_log and arguments[2].console != "json":
        print(text, flush=True)
    run = run_training(*arguments)
    if arguments[2].should_save:
        write_text(run / PROPOSAL_FILE, text)
    return 0
