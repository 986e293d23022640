"""Training under a launcher: `accelerate launch scripts/train.py CONFIG [--key value ...]`."""

import sys

from pos_hf.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:]))
