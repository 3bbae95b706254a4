"""The built-in prompt templates."""

from functools import cache
from importlib import resources

from service.domain.template import Template


@cache
def _load() -> tuple[Template, ...]:
    folder = resources.files("service.datasets") / "templates"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".json")),
        key=lambda file: file.name,
    )
    return tuple(Template.model_validate_json(file.read_bytes()) for file in files)


def builtin_templates() -> dict[str, Template]:
    """Return name -> template, sorted by name. Raises ValidationError for an invalid file."""
    return {template.name: template for template in _load()}
