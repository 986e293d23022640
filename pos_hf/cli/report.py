"""`pos-hf report RUN [RUN ...]`: one HTML page about one run, or comparing up to six."""

from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0.

    Raises:
        InputError: A folder is no run, or the page would replace something that is no report.
    """
    args = parser().parse_args(argv)

    with importing():
        from pos_hf.reporting import write_report

    out = args.out or (args.runs[0] if len(args.runs) == 1 else Path()) / "report.html"
    write_report(args.runs, out)
    print(f"report: {out}")
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf report", description="Draw runs as one HTML page that needs no network."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="output folders; the first is the baseline")
    parser.add_argument(
        "--out",
        type=Path,
        help="HTML file (default: report.html in the run's folder, in the current one for several); "
        "an earlier report is replaced, any other file is kept",
    )
    return parser
