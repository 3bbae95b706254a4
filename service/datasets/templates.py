"""The prompt templates that travel with the software."""

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
    """Name -> template, by name. A file that is not a valid template raises ValidationError."""
    return {template.name: template for template in _load()}
