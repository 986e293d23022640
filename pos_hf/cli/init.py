"""`pos-hf init FOLDER`: a commented config for a folder of images, after a look at what is in it."""

from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing
from pos_hf.errors import InputError

SCHEMA_FILE = "pos_hf.schema.json"


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: The folder is not understood, or the config exists.
    """
    args, overrides = parser().parse_known_args(argv)

    with importing():
        from pos_hf.files import keep_existing, write_text
        from pos_hf.runs.config import data_options
        from pos_hf.runs.proposal import propose_config
        from pos_hf.runs.schema import config_schema

    file = args.out or Path(f"{args.folder.resolve().name}.yaml")
    keep_existing([file], "give another file to --out, or train with it")
    known = data_options(overrides)
    if others := [key for key in overrides if key.startswith("--") and key[2:].split("=")[0] not in known]:
        raise InputError(f"{others[0]} is no key of the data: change it in the config that init writes")
    text = propose_config(args.folder, **known)
    write_text(file.parent / SCHEMA_FILE, config_schema())
    write_text(file, f"# yaml-language-server: $schema={SCHEMA_FILE}\n{text}")
    print(f"{text}\nThis is written to {file}. Next:\n  pos-hf check-data {file}\n  pos-hf train {file}")
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf init",
        description="Look at a folder of images and masks and write a commented config for it, with a schema "
        "by which editors complete and check its keys. What is known of the data can be said: --labeled_ids, "
        "--images and its other keys (docs/settings.md).",
    )
    parser.add_argument("folder", type=Path, help="of the images, or `shapes`")
    parser.add_argument("--out", type=Path, help="the config (default: the folder's name and .yaml, here)")
    return parser
