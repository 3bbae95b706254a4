"""Presets and base models that a run can name."""

from typing import Any

from pydantic import Field

from service.api.schemas.base import View


class PresetView(View):
    """A named set of default values for a run."""

    name: str = Field(description="Value of a run's `preset` field.")
    description: str = Field(description="Purpose of the preset.")
    values: dict[str, Any] = Field(description="Fields that the preset sets.")
    spec: dict[str, Any] = Field(description="Every field with its value under this preset.")


class ModelView(View):
    """A base model that is available without a model hub."""

    name: str = Field(description="Value of a run's `base_model` field.")
    source: str = Field(
        description="`directory`: in the models directory; `bundled`: in an installed Python "
        "package."
    )
