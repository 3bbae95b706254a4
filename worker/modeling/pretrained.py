"""The only module that lets transformers read a model directory.

Code that a directory carries is never run: `trust_remote_code` is False at every call. Without it
transformers asks on standard input whether to run the code, and waits for the answer.
"""

import copy
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import Any

import torch

from worker.modeling.model_failures import CONFIG, TOKENIZER, WEIGHTS, reading, unavailable
from worker.modeling.model_files import FaultyFile, WeightFiles, read_weight_files
from worker.modeling.tokenizer_checks import check_tokenizer

_OPTIONS: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}

_RESTORE_CONFIG = (
    "Restore the config.json that belongs to these weights, or download the model's files again"
)

_MAX_ADDITIONAL = 10**8
"""Parameters that transformers may create in excess of those that the files hold."""

_MAX_PACKED = 16
"""Quantized weights in one stored number: those of 2 bits in 32."""

_MIN_LAYERS_LIMIT = 512
"""Number of layers or experts that is never refused, for models that share weights."""


def read_config(directory: Path, name: str) -> Any:
    """Return the model's configuration. Raises ProgramFailure(model_unavailable)."""
    from transformers import AutoConfig

    with reading(name, CONFIG):
        config = AutoConfig.from_pretrained(directory, **_OPTIONS)
        config.get_text_config()
        return config


def read_tokenizer(directory: Path, name: str) -> Any:
    """Return the model's fast tokenizer, checked. Raises ProgramFailure(model_unavailable)."""
    from transformers import AutoTokenizer

    with reading(name, TOKENIZER):
        tokenizer = AutoTokenizer.from_pretrained(directory, **_OPTIONS)
    check_tokenizer(tokenizer, directory, name)
    return tokenizer


def read_model(directory: Path, name: str, **options: Any) -> tuple[Any, list[str]]:
    """Return the causal language model, and the names of weights in its files that it ignores.

    `options` are those of from_pretrained. Raises ProgramFailure(model_unavailable) if the weights
    are not those that config.json describes.
    """
    from transformers import AutoModelForCausalLM

    config = read_config(directory, name)
    try:
        weights = read_weight_files(directory)
    except FaultyFile as fault:
        raise unavailable(name, str(fault), fault.remedy) from fault
    _check_counts(config, weights, name)
    method = quantization_method(config)
    _check_amount(config, weights, name, 1 if method is None else _MAX_PACKED)
    with reading(name, WEIGHTS) if method is None else _reading_quantized(name, method):
        model, info = AutoModelForCausalLM.from_pretrained(
            directory,
            use_safetensors=True,
            output_loading_info=True,
            # They are reported below, with names and shapes; transformers only logs those.
            ignore_mismatched_sizes=True,
            **_OPTIONS,
            **options,
        )
    if mismatched := sorted(info["mismatched_keys"]):
        others = f" ({len(mismatched) - 1} other weights differ, too)" if mismatched[1:] else ""
        weight, stored, described = mismatched[0]
        file = weights.origins.get(weight, "the weight files")
        raise unavailable(
            name,
            f"{weight} has the shape {tuple(stored)} in {file}, but config.json describes "
            f"{tuple(described)}{others}",
            _RESTORE_CONFIG,
        )
    if missing := sorted(info["missing_keys"]):
        # transformers would initialize them at random and continue.
        file = weights.origins.get(missing[0], ", ".join(weights.files[:2]))
        raise unavailable(
            name,
            f"{file} lacks {missing[0]}, one of {len(missing)} weights that config.json describes "
            "and no file holds",
            _RESTORE_CONFIG,
        )
    return model, sorted(info["unexpected_keys"])


def convert_gguf(path: Path) -> tuple[Any, Any]:
    """Return model, in bfloat16, and tokenizer of a GGUF file. Raises ProgramFailure."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with reading(path.name, "the GGUF file"):
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            **_OPTIONS,
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, **_OPTIONS)
    return model, tokenizer


def quantization_method(config: Any) -> str | None:
    """Return the method by which the stored weights are quantized; None if they are not."""
    section = getattr(config, "quantization_config", None) or {}
    method = section.get("quant_method") if isinstance(section, dict) else section.quant_method
    return None if method is None else str(getattr(method, "value", method))


def _reading_quantized(name: str, method: str) -> AbstractContextManager[None]:
    return reading(
        name,
        f"its weights, quantized ({method}) as config.json describes,",
        "Use the model's unquantized weights",
    )


def _check_amount(config: Any, weights: WeightFiles, name: str, packed: int) -> None:
    """Refuse a config.json that describes far more weights than the files hold.

    A stored number holds up to `packed` quantized ones. transformers would create the weights and
    run out of memory; here the model is built on the meta device, which takes none. Smaller
    differences are left to transformers, which knows the conversions.
    """
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    config.__dict__.pop("quantization_config", None)
    with reading(name, CONFIG), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        described = sum(parameter.numel() for parameter in model.parameters())
    stored = packed * sum(prod(shape) for shape in weights.shapes.values())
    if described > 2 * stored and described - stored > _MAX_ADDITIONAL:
        raise unavailable(
            name,
            f"config.json describes a model of {described:,} parameters, while its weight files "
            f"hold at most {stored:,}",
            _RESTORE_CONFIG,
        )


def _check_counts(config: Any, weights: WeightFiles, name: str) -> None:
    """Refuse more layers or experts than there are weights: creating them would take for ever."""
    limit = max(
        _MIN_LAYERS_LIMIT,
        len(weights.shapes),
        *(max(shape, default=0) for shape in weights.shapes.values()),
    )
    numbers = {**config.to_dict(), **config.get_text_config().to_dict()}
    for key, value in numbers.items():
        counts = any(part in key for part in ("layer", "expert", "block"))
        if counts and isinstance(value, int) and value > limit:
            raise unavailable(
                name,
                f"config.json describes a model with {key} {value}, while its files hold "
                f"{len(weights.shapes)} weights",
            )
