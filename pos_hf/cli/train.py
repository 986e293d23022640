"""`pos-hf train CONFIG [--key value ...]`, also scripts/train.py: a config in, a finished run folder out."""

import argparse
from pathlib import Path

from pos_hf.cli.parsing import CommandParser

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
is a key. Several processes: `accelerate launch scripts/train.py CONFIG ...`.
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
    parser = CommandParser(
        prog="pos-hf train",
        description="Train a segmentation model on labeled and unlabeled images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, help="YAML file of the run")
    arguments, overrides = parser.parse_known_args(argv)

    from pos_hf.runs.config import parse_config
    from pos_hf.runs.train import run_training

    run_training(*parse_config(arguments.config, overrides))
    return 0
