"""`pos-hf study STUDY.yaml`: a grid of runs under one question, ending in a table."""

from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0, or 1 where a run failed or its files are damaged; the table then holds the others.

    Raises:
        InputError: The study or one of its runs cannot be used; nothing has been started.
    """
    args = parser().parse_args(argv)

    with importing():
        from pos_hf.studies import label_budget, read_study, read_study_scores, run_study, write_tables

    if args.label_budget:
        study = label_budget(args.study, args.label_budget, args.seeds)
    else:
        study = read_study(args.study)
    failed = [] if args.table_only else run_study(study, args.jobs)
    print(write_tables(study))
    for run in failed:
        print(f"failed: {run.arm}, {run.column}, seed {run.seed}; see {run.log_file}")
    return 1 if failed or read_study_scores(study)[1] else 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf study",
        description="Run every arm of a study on every column with every seed, skip what is done, and write "
        "table.md, table.csv, table.tex and table.html into the study's folder.",
    )
    parser.add_argument("study", type=Path, help="YAML file, such as configs/studies/shapes.yaml")
    parser.add_argument(
        "--label_budget",
        type=labels,
        metavar="6,12,24",
        help="the file is a run's config: compare it with supervised training at these numbers of labels",
    )
    parser.add_argument("--seeds", type=int, default=3, help="of a label budget: runs for each number")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at the same time, on a machine whose runs share no GPU"
    )
    parser.add_argument(
        "--table_only", action="store_true", help="start nothing, write the table of what is done"
    )
    return parser


def labels(text: str) -> list[int]:
    """Numbers of labels, separated by commas."""
    return [int(number) for number in text.split(",")]
