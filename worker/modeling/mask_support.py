"""Which models can take the masks of shared prefixes."""

from typing import Any


def cannot(model: Any) -> str | None:
    """Why the model cannot take masks made here; None if, as far as its config says, it can."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    if unknown := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"the model has layers of the kind {unknown[0]}"
    return None
