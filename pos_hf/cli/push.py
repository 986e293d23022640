"""`pos-hf push RUN --repo USER/NAME`: shows what of a run the Hub would get, and with --yes uploads it."""

from pathlib import Path
from typing import TYPE_CHECKING

from pos_hf.cli.parsing import CommandParser, importing
from pos_hf.errors import InputError

if TYPE_CHECKING:
    from pos_hf.hub.files import Files


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: The folder is no finished run, or the Hub refuses it.
    """
    args = parser().parse_args(argv)

    with importing():
        from pos_hf.hub import check_repository, evaluation_results, model_card, run_facts, run_files, upload
        from pos_hf.hub.space import space_files
    from pos_hf.run_folder import read_runs

    for repository in filter(None, (args.repo, args.space)):
        check_repository(repository)
    if args.card and not args.card.is_file():
        raise InputError(f"there is no card '{args.card}'")
    (run,) = read_runs([args.run])
    facts = run_facts(run)
    try:
        card = args.card.read_text() if args.card else model_card(run, facts, args.repo, args.license)
        files = run_files(args.run, card, evaluation_results(run, facts))
    except UnicodeDecodeError as error:
        raise InputError(f"the card '{args.card}' is no text in UTF-8: save it as such") from error
    for line in listing(files):
        print(line)
    page = space_files(run, args.repo) if args.space else {}
    if args.space:
        print(f"\nthe Space {args.space}, with the source of pos_hf:")
        for line in listing(page):
            print(line)
    if not args.yes:
        print(f"\nnothing was uploaded: add --yes to send these files to {args.repo}")
        return 0
    print(f"\nuploaded to {upload(files, args.repo, private=args.private)}")
    if args.space:
        print(f"uploaded to {upload(page, args.space, private=args.private, kind='space')}")
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf push",
        description="Show which files of a run would be uploaded to the Hub; with --yes, upload them.",
    )
    parser.add_argument("run", type=Path, help="output folder of a finished training run")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="repository, made if need be")
    parser.add_argument("--space", metavar="USER/NAME", help="a Space with a page to try the model on")
    parser.add_argument("--yes", action="store_true", help="upload; without it nothing leaves this machine")
    # None leaves a new repository's visibility to the account's default
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--license", help="the Hub's identifier of the weights' license, such as apache-2.0")
    parser.add_argument("--card", type=Path, metavar="FILE", help="upload this card in place of a fresh one")
    return parser


def listing(files: "Files") -> list[str]:
    """One line a file with its size, and their sum."""
    from pos_hf.hub.push import size

    sizes = {name: size(content) for name, content in sorted(files.items())} | {"in all": 0}
    sizes["in all"] = sum(sizes.values())
    width = max(map(len, sizes))
    return [f"{name:<{width}}  {readable(count):>9}" for name, count in sizes.items()]


def readable(count: int) -> str:
    """Bytes in the largest unit that leaves at least one: 1500 is "1.5 kB"."""
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
