"""What a person sees of a run: a summary, one bar, aligned rows, a last screen. All numbers are in the log.

On a terminal rows are set in colour and as many as fit one screen; elsewhere (a file, CI, a notebook) a plain
row a log and no bar; `console: json` prints one JSON object a line instead.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

ROWS = 14
"""Of a whole run on a terminal: they fit 24 lines, with the summary scrolled up."""
ROW_SECONDS = 600.0
"""A long run's rows on a terminal are at most so far apart."""
TIMED_STEPS = 10
"""After so many the duration is foretold."""
COLUMNS = (
    ("step", 7),
    ("labeled", 9),
    ("unlabeled", 9),
    ("kept %", 7),
    ("rate", 9),
    ("weights", 23),
    ("mIoU %", 7),
)
"""Title and width in characters; together 77."""
CLASSES_SHOWN = 8


class RunConsole(TrainerCallback):
    """Takes the place of the Trainer's own bar and of its printed dictionaries.

    A row on a terminal stands for all windows logged since the row before: mean losses and kept share, the
    range of both weights.

    Args:
        form: "auto", "plain" or "json".
    """

    def __init__(self, form: str = "auto") -> None:
        self.form = form
        self.on_terminal = form == "auto" and sys.stdout.isatty()
        self._bar: Any = None
        self._windows: list[Mapping[str, Any]] = []
        self._shown_at = (0, 0.0)
        self._began: tuple[int, float] | None = None
        self._has_header = False

    # ---- What the Trainer calls ----

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        self._windows, self._has_header, self._began = [], False, None
        self._shown_at = state.global_step, time.monotonic()
        if state.is_world_process_zero and self.form != "json":
            is_hidden = bool(args.disable_tqdm) or not self.on_terminal
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                unit="step",
                dynamic_ncols=True,
                disable=is_hidden,
                leave=False,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar; once foretell the duration, from steps after the first, which warms up."""
        if not state.is_world_process_zero or self.form == "json":
            return
        self._bar.update(state.global_step - self._bar.n)
        if self._began is None:
            self._began = state.global_step, time.monotonic()
        elif state.global_step == self._began[0] + TIMED_STEPS and state.global_step < state.max_steps:
            seconds = (time.monotonic() - self._began[1]) / TIMED_STEPS
            left = state.max_steps - state.global_step
            self.say(f"{left} steps to go: about {duration(left * seconds)}{_gpu_memory(args)}", style="dim")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in a window of training, or the scores of an evaluation."""
        logs = kwargs["logs"]
        if not state.is_world_process_zero:
            return
        if self.form == "json":
            print(json.dumps({"step": state.global_step, **logs}, default=str), flush=True)
        elif "eval_mean_iou" in logs:
            self._show(state, logs["eval_mean_iou"])
        elif "loss" in logs:
            self._windows.append(logs)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show what was logged: not before an evaluation at the same step had its turn."""
        step, seconds = self._shown_at
        is_due = state.global_step - step >= state.max_steps / ROWS
        if self._windows and (is_due or not self.on_terminal or time.monotonic() - seconds > ROW_SECONDS):
            self._show(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show what is left, and close the bar."""
        if self._windows:
            self._show(state)
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # ---- Printing ----

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the bar, if there is one."""
        self._print(Text(text, style=style))

    def show_summary(self, facts: Mapping[str, str]) -> None:
        """Print what is about to be trained.

        Args:
            facts: a few words by title, in order.
        """
        if self.form == "json":
            print(json.dumps({"event": "start", **facts}), flush=True)
        else:
            self._print(_pairs(facts))

    def show_result(
        self,
        scores: Mapping[str, str],
        classes: Sequence[tuple[str, float, float | None]],
        files: Mapping[str, str],
        commands: Sequence[str],
    ) -> None:
        """Print the last screen.

        Args:
            scores: the headline first, a few words by title.
            classes: name, IoU in percent, and by how many points it moved over the run, None if unknown.
            files: path by what lies there.
            commands: lines to type next.
        """
        if self.form == "json":
            ious = {name: iou for name, iou, _ in classes}
            print(json.dumps({"event": "end", **scores, "iou": ious, **files}), flush=True)
            return
        self.say("")
        self._print(_pairs(scores, strong=True))
        if classes:
            self._print(_class_table(classes))
        self._print(_pairs(files))
        self._print(
            _pairs(dict(zip(["next"] + [" " * i for i in range(1, len(commands))], commands, strict=True)))
        )

    def _show(self, state: TrainerState, mean_iou: float | None = None) -> None:
        cells = _row(state.global_step, self._windows, mean_iou)
        self._windows, self._shown_at = [], (state.global_step, time.monotonic())
        if not self._has_header:
            self.say(_aligned([title for title, _ in COLUMNS]), style="bold")
            self._has_header = True
        self.say(_aligned(cells), style="" if mean_iou is None else "green")

    def _print(self, shown: Any) -> None:
        # through tqdm, which lifts the lines above every open bar, also those of an evaluation
        console = Console(file=sys.stdout, no_color=not self.on_terminal, highlight=False, soft_wrap=True)
        with console.capture() as captured:
            console.print(shown)
        tqdm.write(captured.get(), file=sys.stdout, end="")
        sys.stdout.flush()


def duration(seconds: float) -> str:
    """A duration in its two largest units, such as "2 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _row(step: int, windows: Sequence[Mapping[str, Any]], mean_iou: float | None) -> list[str]:
    def mean(key: str, form: str, factor: float = 1.0) -> str:
        values = [window[key] for window in windows if key in window]
        return form.format(factor * sum(values) / len(values)) if values else ""

    weights = [
        [window[f"{side}_weight"] for window in windows if f"{side}_weight" in window]
        for side in ("supervised", "unsupervised")
    ]
    spans = " ".join(_span(min(values), max(values)).rjust(11) for values in weights if values)
    return [
        str(step),
        mean("supervised_loss", "{:.4f}"),
        mean("unsupervised_loss", "{:.4f}"),
        mean("kept_share", "{:.1f}", 100),
        f"{windows[-1]['learning_rate']:.2e}" if windows else "",
        spans,
        "" if mean_iou is None else f"{100 * mean_iou:.1f}",
    ]


def _span(low: float, high: float) -> str:
    """A range in two digits, and one number where its ends are the same."""
    ends = f"{low:.2f}", f"{high:.2f}"
    return "-".join(dict.fromkeys(ends))


def _aligned(cells: Sequence[str]) -> str:
    return " ".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)).rstrip()


def _pairs(facts: Mapping[str, str], strong: bool = False) -> Text:
    """A line a fact, the first in bold if `strong`; not a table, which would fold a path within a word."""
    lines = []
    for number, (title, words) in enumerate(facts.items()):
        style = "bold green" if strong and number == 0 else ""
        lines.append(Text.assemble((f"{title:<11}  ", "dim"), (words.replace("\n", "\n" + " " * 13), style)))
    return Text("\n").join(lines)


def _class_table(classes: Sequence[tuple[str, float, float | None]]) -> Table:
    """All classes, or of many those that moved most: up first, down last."""
    shown, left_out = list(classes), ""
    if len(shown) > CLASSES_SHOWN:
        ordered = sorted(shown, key=lambda entry: -(entry[2] or 0))
        half = CLASSES_SHOWN // 2
        shown, left_out = ordered[:half] + ordered[-half:], f"{len(ordered) - 2 * half} more in the report"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=11, no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
    for _ in range(2):
        table.add_column(justify="right", no_wrap=True)
    for number, (name, iou, change) in enumerate(shown):
        moved = "" if change is None else f"{change:+.1f}"
        style = "green" if (change or 0) > 0 else "red" if (change or 0) < 0 else ""
        table.add_row("IoU %" if number == 0 else "", Text(name), f"{iou:.1f}", Text(moved, style=style))
    if left_out:
        table.add_row("", Text(left_out, style="dim"), "", "")
    return table


def _gpu_memory(args: TrainingArguments) -> str:
    if args.device.type != "cuda":
        return ""
    total = torch.cuda.get_device_properties(args.device).total_memory
    return f"; {torch.cuda.max_memory_allocated(args.device) / 2**30:.1f} of {total / 2**30:.0f} GiB in use"
