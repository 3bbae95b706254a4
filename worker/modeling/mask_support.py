"""Support of a model for custom attention masks, as shared prefixes need them."""

from typing import Any


def unsupported_reason(model: Any) -> str | None:
    """Return why the model cannot take custom masks; None if, by its config, it can."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    if unknown := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"the model has layers of type {unknown[0]}"
    return None
