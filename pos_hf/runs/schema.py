"""The keys of a config as a JSON schema, by which editors complete and check it."""

import dataclasses
import json
import types
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pos_hf.runs.config import GROUPS

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}


def config_schema() -> str:
    """JSON schema, draft 7: every key with its type, default and meaning, and no other key."""
    properties: dict[str, Any] = {}
    for group in GROUPS:
        hints = get_type_hints(group)
        for field in dataclasses.fields(group):
            if not field.init:
                continue
            entry: dict[str, Any] = {"description": field.metadata.get("help", "").replace("%%", "%")}
            allowed = _allowed(hints[field.name])
            if allowed:
                entry["anyOf"] = allowed
            if isinstance(field.default, bool | int | float | str) and not isinstance(field.default, Enum):
                entry["default"] = field.default
            properties[field.name] = entry
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "pos_hf config",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(schema, indent=1) + "\n"


def _allowed(hint: Any) -> list[dict[str, Any]]:
    """What a value of an annotation may be; [] where anything may."""
    if hint is type(None):
        return [{"type": "null"}]
    if get_origin(hint) is Literal:
        return [{"enum": list(get_args(hint))}]
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_allowed(part) for part in get_args(hint)]
        return [entry for part in parts for entry in part] if all(parts) else []
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [{"enum": [member.value for member in kind]}]
    return [{"type": TYPES[kind]}] if kind in TYPES else []
