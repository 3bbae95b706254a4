"""Files beside a merged model's weights: configuration, tokenizer, chat template."""

import fnmatch
import json
import shutil
from pathlib import Path
from typing import Any

from worker.merging.streamed import Write, write_json
from worker.modeling.pretrained import read_config

# Copied byte by byte from the base model, so that tokenization does not change; licences as well.
_COPIED_FILES = (
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "*.tiktoken",
    "*.jinja",
    "chat_template.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)


def write_companion_files(base: Path, target: Path, dtype: str, write: Write) -> None:
    """Write config.json for unquantized weights of `dtype`, and copy the other files."""
    write_json(write, target / "config.json", _config(base, dtype))
    for path in sorted(base.iterdir()):
        if path.is_file() and any(
            fnmatch.fnmatchcase(path.name, pattern) for pattern in _COPIED_FILES
        ):
            _copy(write, path, target)
    if not (target / "generation_config.json").exists():
        from transformers import GenerationConfig

        settings = GenerationConfig.from_model_config(read_config(target, "the merged model"))
        write("generation_config.json", lambda: settings.save_pretrained(target))


def _copy(write: Write, path: Path, target: Path) -> None:
    def copied() -> None:
        shutil.copyfile(path, target / path.name)

    write(path.name, copied)


def _config(base: Path, dtype: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((base / "config.json").read_text())
    config.pop("quantization_config", None)
    for section in (config, config.get("text_config")):
        if isinstance(section, dict):
            # transformers 4 called it torch_dtype; if both are set, the newer name counts.
            section.pop("torch_dtype", None)
            section["dtype"] = dtype
    return config
