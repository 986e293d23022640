"""`pos-hf recipes`: what can be given to `pos-hf train` by name, in a checkout and after a pip install."""

import textwrap
from pathlib import Path

from pos_hf.cli.parsing import CommandParser


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: A recipe's name to print it, nothing to list all.

    Returns:
        0.

    Raises:
        InputError: There is no such recipe.
    """
    args = parser().parse_args(argv)

    from pos_hf.runs.recipes import recipe_file, recipes

    if args.name is not None:
        print(recipe_file(args.name).read_text(), end="")
        return 0
    width = max(map(len, recipes()))
    for name, file in recipes().items():
        print(f"{name:<{width}}  {first_comment(file)}")
    print("\npos-hf train NAME --dataset FOLDER --output_dir RUN trains one; pos-hf recipes NAME prints it.")
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf recipes",
        description="List the recipes; with a name print one, to be saved as a config and changed.",
    )
    parser.add_argument("name", nargs="?", help="such as pascal/unimatch_v2/dinov2_small")
    return parser


def first_comment(file: Path) -> str:
    """The first sentence of a config's comment."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return textwrap.shorten(" ".join(lines).split(". ")[0].rstrip("."), 90, placeholder=" ...")
