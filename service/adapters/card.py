"""The model card of an imported adapter: its own, or a short one that says what is known."""

import json
from collections.abc import Sequence
from pathlib import Path

from service.domain.spec import RunSpec
from service.domain.storable import is_storable


def card_text(spec: RunSpec, labels: Sequence[str], card: Path | None) -> str:
    """Return the uploaded card; if there is none that is text, a new one."""
    if card is not None:
        try:
            text = card.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            text = ""
        if text.strip() and is_storable(text):
            return text
    label_list = ", ".join(f"`{_plain(label)}`" for label in labels)
    lines = [
        "---",
        f"base_model: {json.dumps(spec.base_model)}",
        "library_name: peft",
        "license: other",
        'license_name: "as-the-base-model"',
        "tags: [lora]",
        "---",
        "",
        f"# {_plain(spec.name or spec.base_model)}",
        "",
        f"A LoRA adapter for `{spec.base_model}`, trained elsewhere and imported into Fairtune.",
        f"It was imported as a classifier into {label_list}",
        f"under the prompt template `{spec.template}`. Fairtune does not know on which rows it was",
        "trained, nor the licences of the base model and of the data.",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return the text on one line, without characters that are markup in Markdown or HTML."""
    line = " ".join(text.split())
    return "".join("_" if character in "<>|`[]*#\\" else character for character in line)
