"""What a run can name: presets and base models."""

from typing import Any

from pydantic import Field

from service.api.schemas.base import View


class PresetView(View):
    name: str
    description: str
    values: dict[str, Any] = Field(description="What the preset sets.")
    spec: dict[str, Any] = Field(description="Every field's value under this preset.")


class ModelView(View):
    name: str = Field(description="What base_model takes.")
    source: str = Field(description="directory, or bundled (a package that holds the model)")
