"""Presets: named values for a run specification, each a JSON file in this directory.

A preset `extends` another preset or the defaults of the specification's fields.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.domain.spec import overlay

FALLBACK = "default"


class Preset(BaseModel):
    """A preset with the values that it and the presets it extends set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    values: dict[str, Any]
    """Own values merged into those of the extended preset; other fields have their defaults."""


@cache
def presets() -> dict[str, Preset]:
    """Return every preset by name, sorted by name."""
    files = sorted(
        (file for file in resources.files(__name__).iterdir() if file.name.endswith(".json")),
        key=lambda file: file.name,
    )
    raw = {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in files}

    def values(name: str) -> dict[str, Any]:
        base = values(raw[name]["extends"]) if "extends" in raw[name] else {}
        return overlay(base, raw[name]["values"])

    return {
        name: Preset(name=name, description=preset["description"], values=values(name))
        for name, preset in raw.items()
    }
