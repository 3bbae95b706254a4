"""The only module that lets transformers read a model directory.

Code that a directory carries is never run: `trust_remote_code` is False at every call. Without it
transformers asks on standard input whether to run the code, and waits for the answer.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from worker.modeling.model_failures import CONFIG, TOKENIZER, WEIGHTS, reading, unavailable
from worker.modeling.model_files import FaultyFile, WeightFiles, read_weight_files
from worker.modeling.tokenizer_checks import check_tokenizer

_OPTIONS: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}

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

    method = quantization_method(_check_sizes(directory, name))
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
        weight, stored, described = mismatched[0]
        raise _mismatch(name, weight, tuple(stored), tuple(described), len(mismatched))
    if missing := sorted(info["missing_keys"]):
        # transformers would initialize them at random and continue.
        raise unavailable(
            name,
            f"its weight files lack {len(missing)} weights that config.json describes, "
            f"{missing[0]} for one",
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
        name, f"its weights, which are quantized ({method}),", "Use the model's unquantized weights"
    )


def _check_sizes(directory: Path, name: str) -> Any:
    """Compare the shapes in the weight files with those that config.json describes.

    Returns the configuration. The model is built on the meta device, without memory: a wrong number
    could otherwise ask for any amount of it.
    """
    from transformers import AutoModelForCausalLM

    config = read_config(directory, name)
    try:
        weights = read_weight_files(directory)
    except FaultyFile as fault:
        raise unavailable(name, str(fault), fault.remedy) from fault
    _check_counts(config, weights, name)
    if getattr(config, "quantization_config", None) is not None:
        return config  # packed weights have other shapes
    with reading(name, CONFIG), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        described = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    mismatched = sorted(
        key for key, shape in described.items() if weights.shapes.get(key, shape) != shape
    )
    if mismatched:
        weight = mismatched[0]
        raise _mismatch(
            name, weight, weights.shapes[weight], described[weight], len(mismatched), weights
        )
    return config


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


def _mismatch(
    name: str,
    weight: str,
    stored: tuple[int, ...],
    described: tuple[int, ...],
    count: int,
    weights: WeightFiles | None = None,
) -> Exception:
    file = "the weight files" if weights is None else weights.origins[weight]
    others = f" ({count - 1} other weights differ as well)" if count > 1 else ""
    return unavailable(
        name,
        f"{weight} has the shape {stored} in {file}, but config.json describes {described}{others}",
        "Restore the config.json that belongs to these weights, or download both again",
    )
