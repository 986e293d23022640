"""Writes docs/settings.md, every key of a config: `python scripts/settings_page.py`."""

import dataclasses
from pathlib import Path

from transformers import TrainingArguments

from pos_hf.data import DataArguments
from pos_hf.runs.config import ModelArguments
from pos_hf.training import POSConfig

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """\
# Settings

Every key of a config; the command line takes each as `--key value` and wins. Mappings are JSON there.
Whatever else `transformers.TrainingArguments` has is a key too, with its own default: `max_steps`,
`num_train_epochs`, `per_device_train_batch_size`, `learning_rate`, `optim`, `bf16`, `seed`, `save_steps`,
`eval_strategy`, `report_to` ... `scripts/settings_page.py` writes this page.
"""


def table(title: str, fields: list[dataclasses.Field]) -> str:
    """A section with one row a field."""
    rows = [f"| `{field.name}` | {default(field)} | {meaning(field)} |" for field in fields]
    return "\n".join(["", f"## {title}", "", "| key | default | meaning |", "|---|---|---|", *rows, ""])


def default(field: dataclasses.Field) -> str:
    """The default as YAML would have it."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is None or value == "":
        return ""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def meaning(field: dataclasses.Field) -> str:
    """The field's help, safe inside a table's cell."""
    return field.metadata["help"].replace("%%", "%").replace("|", "\\|")


def page() -> str:
    """The whole page."""
    inherited = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    own = [
        field
        for field in dataclasses.fields(POSConfig)
        if field.name not in inherited or field.metadata != inherited[field.name].metadata
    ]
    return HEAD + "".join(
        table(title, fields)
        for title, fields in {
            "Model": list(dataclasses.fields(ModelArguments)),
            "Data": list(dataclasses.fields(DataArguments)),
            "Training": own,
        }.items()
    )


if __name__ == "__main__":
    PAGE.write_text(page())
