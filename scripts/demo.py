"""`make demo`: the same few labels of `shapes` with and without the unlabeled images, in one report."""

import json
import sys
from pathlib import Path

from pos_hf.cli.main import main
from pos_hf.run_folder import read_runs

ROOT = Path(__file__).parents[1]
RUNS = {"supervised only": "supervised", "UniMatch V2 + POS+MEO": "pos_meo"}


def demo(folder: Path, extra: list[str]) -> int:
    """Train both configs of configs/shapes into `folder` and print what the comparison shows."""
    scores = {}
    for title, name in RUNS.items():
        print(f"\n=== {title} ===", flush=True)
        run = folder / name
        config = str(ROOT / "configs" / "shapes" / f"{name}.yaml")
        code = main(["train", config, "--output_dir", str(run), "--overwrite", *extra])
        if code:
            return code
        scores[title] = json.loads((run / "metrics.json").read_text())["mean_iou"]
    report = folder / "report.html"
    main(["report", *(str(folder / name) for name in RUNS.values()), "--out", str(report)])
    (without, with_unlabeled) = scores.values()
    print("\nTest mIoU, in percent:")
    for title, score in scores.items():
        print(f"  {title:<24}{100 * score:6.1f}")
    print(
        f"With these labels and this seed, the unlabeled images changed it by "
        f"{100 * (with_unlabeled - without):+.1f} points.\n"
        f"{how_pos_acted(folder / 'pos_meo')}\n\n"
        f"model and card  {folder / 'pos_meo'}\n"
        f"pictures        {folder / 'pos_meo' / 'examples'}\n"
        f"report          {report}"
    )
    return 0


def how_pos_acted(run: Path) -> str:
    """The range of POS's weights over the run (means of the logged windows), beside the average's 0.50."""
    (history,) = read_runs([run])
    weights = [history.series(f"{objective}_weight")[1] for objective in ("supervised", "unsupervised")]
    ranges = [f"{values.min():.2f} to {values.max():.2f}" for values in weights]
    bounded = history.series("bounded_share")[1].mean()
    return (
        f"POS weighted the supervised gradient {ranges[0]}, the unsupervised one {ranges[1]} (the average: "
        f"0.50 each);\nits bound min_weight decided {100 * bounded:.0f} % of the steps."
    )


if __name__ == "__main__":
    sys.exit(demo(Path("demo"), sys.argv[1:]))
