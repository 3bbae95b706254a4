"""Checks of a request's prompt template, shared by runs, evaluations and predictions."""

from collections.abc import Collection

from service.datasets.templates import builtin_templates
from service.domain.errors import InvalidRequest


def check_template_name(pointer: str, name: str) -> None:
    """Raise InvalidRequest if there is no template of that name."""
    if name not in (templates := builtin_templates()):
        available = ", ".join(templates)
        raise InvalidRequest.at(pointer, f"no such template; available templates: {available}")


def check_template_words(pointer: str, name: str, labels: Collection[str]) -> None:
    """Raise InvalidRequest if the template has words for labels, but not for all of these."""
    words = builtin_templates()[name].labels
    missing = [label for label in labels if words is not None and label not in words]
    if missing:
        raise InvalidRequest.at(
            pointer,
            f"the template {name} has no word for the label {missing[0]!r}; use label_only",
        )
