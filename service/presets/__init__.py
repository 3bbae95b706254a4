"""Presets: named values for a run specification, each a JSON file beside this one.

A preset `extends` another or, at the root, the defaults of the specification's fields.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.domain.spec import overlay

FALLBACK = "default"


class Preset(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    values: dict[str, Any]
    """What it sets, with what it extends laid below; the rest is the fields' own default."""


@cache
def presets() -> dict[str, Preset]:
    """Every preset by name, in the order of their names."""
    files = sorted(
        (file for file in resources.files(__name__).iterdir() if file.name.endswith(".json")),
        key=lambda file: file.name,
    )
    raw = {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in files}

    def values(name: str) -> dict[str, Any]:
        below = values(raw[name]["extends"]) if "extends" in raw[name] else {}
        return overlay(below, raw[name]["values"])

    return {
        name: Preset(name=name, description=preset["description"], values=values(name))
        for name, preset in raw.items()
    }
