"""Presets, templates and base models that a run can name."""

from fastapi import APIRouter

from service.api.dependencies import Ctx
from service.api.schemas.catalog import ModelView, PresetView
from service.datasets.templates import builtin_templates
from service.domain.spec import RunSpec
from service.domain.template import Template
from service.presets import presets
from service.usecases.catalog import local_models

router = APIRouter(prefix="/v1", tags=["catalog"])


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
def list_models(context: Ctx) -> list[ModelView]:
    """List the base models that are available without a model hub.

    This is the state of the API's machine; workers elsewhere have their own models directory.
    """
    models = local_models(context.settings.models_dir)
    return [ModelView(name=model.name, source=model.source) for model in models]
