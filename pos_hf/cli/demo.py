"""`pos-hf demo`: the same few labels of `shapes` with and without the unlabeled images, in one report."""

from pathlib import Path

from pos_hf.cli.parsing import CommandParser, importing

RUNS = {"labels alone": "supervised", "with unlabeled images": "pos_meo"}


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments; further `--key value` pairs go to both trainings.

    Returns:
        0.

    Raises:
        InputError: An argument is unknown, or the folder holds something else.
    """
    args, overrides = parser().parse_known_args(argv)

    with importing():
        from pos_hf.reporting import write_report
        from pos_hf.run_folder import read_runs
        from pos_hf.runs.config import parse_config
        from pos_hf.runs.recipes import recipe_file
        from pos_hf.runs.train import run_training

    scores = {}
    for title, name in RUNS.items():
        print(f"\n{title}", flush=True)
        folder = args.out / name
        config = recipe_file(f"shapes/{name}")
        run_training(*parse_config(config, ["--output_dir", str(folder), "--overwrite", *overrides]))
        (run,) = read_runs([folder])
        scores[title] = 100 * run.metrics["mean_iou"]
    report = args.out / "report.html"
    write_report([args.out / name for name in RUNS.values()], report)
    without, with_unlabeled = scores.values()
    print("\nTest mIoU, in percent:")
    for title, score in scores.items():
        print(f"  {title:<24}{score:6.1f}")
    print(
        f"With these labels and this seed, the unlabeled images changed it by "
        f"{with_unlabeled - without:+.1f} points.\n"
        f"{how_pos_acted(args.out / RUNS['with unlabeled images'])}\n\n"
        f"report       {report}\n"
        f"your images  pos-hf train FOLDER"
    )
    return 0


def parser() -> CommandParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf demo",
        description="Train on 12 labels of generated images, then on the same labels and 240 images without "
        "any; some minutes on a CPU, nothing is downloaded.",
        epilog="Further --key value pairs override the config of both trainings.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the two runs")
    return parser


def how_pos_acted(folder: Path) -> str:
    """The range of POS's weights over the run (means of the logged windows), beside the average's 0.50."""
    from pos_hf.run_folder import read_runs

    (run,) = read_runs([folder])
    weights = [run.series(f"{objective}_weight")[1] for objective in ("supervised", "unsupervised")]
    ranges = [f"{values.min():.2f} to {values.max():.2f}" for values in weights if len(values)]
    bounded = run.series("bounded_share")[1]
    if len(ranges) < 2 or not len(bounded):
        return ""
    return (
        f"POS weighted the supervised gradient {ranges[0]}, the unsupervised one {ranges[1]} (the average: "
        f"0.50 each);\nits bound min_weight decided {100 * bounded.mean():.0f} % of the steps."
    )
