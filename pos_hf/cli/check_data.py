"""`pos-hf check-data CONFIG`: reads a whole dataset and says what is wrong with it and how to mend it."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pos_hf.cli.parsing import CommandParser, importing
from pos_hf.errors import InputError
from pos_hf.files import keep_existing, write_text

if TYPE_CHECKING:
    from pos_hf.data.checks import DataReport, Finding

MOST_WORKERS = 16  # unless asked for: more wait for the disk
SHOWN = 5  # findings of one kind that are listed one by one


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: The command's own arguments.

    Returns:
        0 where training can start, 2 where it cannot.

    Raises:
        InputError: The config cannot be used.
    """
    args, overrides = parser().parse_known_args(argv)

    with importing():
        from pos_hf.data import DataArguments
        from pos_hf.data.checks import check_data
        from pos_hf.data.splits import write_split
        from pos_hf.reporting.data_page import write_data_page
        from pos_hf.runs.config import CONFIG_SUFFIXES, parse_config

    if args.config.suffix in CONFIG_SUFFIXES:
        _, data_args, training = parse_config(args.config, overrides)
        method = training.get_method()
        needs_unlabeled = "unsupervised" in method.objectives
        adjusts_rare_classes = method.adjusts_rare_classes
    elif overrides:
        raise InputError(f"{overrides[0]} needs a config file to override; {args.config} is none")
    else:
        data_args = DataArguments(dataset=str(args.config))
        needs_unlabeled, adjusts_rare_classes = True, False
    if args.write_split is not None:
        roles = ("labeled", "unlabeled", "selection", "test")
        keep_existing(
            [args.write_split / f"{role}.txt" for role in roles], "give another folder to --write_split"
        )
    pages = [path for path in (args.html, args.write_config) if path is not None]
    keep_existing(pages, "give another name to --html or --write_config")
    report = check_data(data_args, needs_unlabeled, adjusts_rare_classes, args.num_workers)
    print(summary(report))
    if args.html is not None:
        write_data_page(report, args.html)
        print(f"the page is written to {args.html}")
    if args.write_config is not None and report.args is not None:
        write_text(args.write_config, config(report, args.config))
        following = "check-data" if report.has_errors else "train"  # its lines may mend some of the errors
        print(f"the config is written to {args.write_config}: pos-hf {following} {args.write_config}")
    if args.write_split is not None and report.data is not None:
        write_split(report.data, args.write_split)
        print(f"the split {report.data.split_hash()} is written to {args.write_split}")
    return 2 if report.has_errors else 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = CommandParser(
        prog="pos-hf check-data",
        description="Read every image and mask, list defects, and name the config lines that mend them.",
        epilog="Further --key value pairs override the config.",
    )
    parser.add_argument("config", type=Path, help="a config file, a folder, or `shapes`")
    parser.add_argument(
        "--num_workers",
        type=int,
        default=min(os.cpu_count() or 1, MOST_WORKERS),
        help="processes that read the images (default: one for each core, here %(default)s; 0: this one)",
    )
    parser.add_argument("--html", type=Path, help="page to draw: images under their masks, classes, findings")
    parser.add_argument(
        "--write_config", type=Path, help="config to write, with the lines that mend the data"
    )
    parser.add_argument("--write_split", type=Path, help="folder to write the ids of every role to")
    return parser


def summary(report: "DataReport") -> str:
    """The report in plain text: images, label histogram, findings, config lines."""
    lines = []
    if report.data is not None:
        rows = ", ".join(f"{count} {role}" for role, count in report.num_rows.items())
        lines += [f"{report.data.name}: {rows}; split {report.data.split_hash()}"]
        lines += [f"    {sentence}" for sentence in report.data.assumptions] + [""]
        lines += _histogram(report)
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.problem), []).append(finding)
    if groups:
        lines.append("")
    for (severity, problem), findings in sorted(groups.items()):
        lines.append(f"{severity}: {findings[0].role} {findings[0].where}: {problem}")
        lines += [f"    also {finding.role} {finding.where}" for finding in findings[1:SHOWN]]
        if len(findings) > SHOWN:
            lines.append(f"    and {len(findings) - SHOWN} more")
    remedies = dict.fromkeys(finding.remedy for finding in report.findings if finding.remedy)
    if remedies:
        lines += ["", "add to the config:"]
        lines += [f"    {line}" for remedy in remedies for line in remedy.splitlines()]
    counts = {severity: 0 for severity in ("error", "warning", "note")}
    for finding in report.findings:
        counts[finding.severity] += 1
    lines += ["", ", ".join(f"{count} {severity}s" for severity, count in counts.items())]
    return "\n".join(lines)


def config(report: "DataReport", given: Path) -> str:
    """A config for `pos-hf train`: the lines of the one given, or of the data, and those that mend them.

    Args:
        report: Of a dataset that could be listed.
        given: The config, or the folder, that was checked.
    """
    import yaml

    from pos_hf.data.arguments import differing_options
    from pos_hf.runs.config import CONFIG_SUFFIXES, read_yaml

    assert report.args is not None
    options = read_yaml(given) if given.suffix in CONFIG_SUFFIXES else {}
    options |= differing_options(report.args)
    lines = [f"# {sentence}" for sentence in (report.data.assumptions if report.data else ())]
    remedies = dict.fromkeys(finding.remedy for finding in report.findings if finding.remedy)
    for remedy in remedies:
        options = {key: value for key, value in options.items() if key not in yaml.safe_load(remedy)}
    lines.append(yaml.safe_dump(options, sort_keys=False, allow_unicode=True, width=100).rstrip())
    return "\n".join([*lines, *remedies, ""])


def _histogram(report: "DataReport") -> list[str]:
    assert report.data is not None
    names = report.data.id2label
    width = max(map(len, names.values()))
    lines = [f"{'share of labeled pixels':<{width + 4}}" + "".join(f"{r:>12}" for r in report.label_counts)]
    for id, name in names.items():
        shares = (counts[id] / max(counts.sum(), 1) for counts in report.label_counts.values())
        lines.append(f"{id:>3} {name:<{max(width, 19)}}" + "".join(f"{share:>12.2%}" for share in shares))
    return lines
