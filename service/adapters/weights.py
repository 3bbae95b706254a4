"""The tensors of adapter_model.safetensors, from its header alone: no tensor is loaded.

The format: eight bytes with the header's length, little-endian; the header, a JSON object of names
with dtype, shape and data offsets; the data without gaps.
"""

import json
import re
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from service.domain.adapter_config import AdapterConfig
from service.domain.content_kinds import page_kind, signed_kind
from service.domain.errors import InvalidRequest, first_line, pointer_of
from service.domain.job import ADAPTER_WEIGHTS_FILE

MAX_HEADER_BYTES = 32 << 20
"""More than 200,000 tensors; the library's own limit is 100 MB."""
_MAX_ELEMENTS = 1 << 48
_MAX_DIMENSIONS = 8
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_MAX_SHOWN = 120

_PREFIX = "base_model.model."
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.weight)?")
_SAVE_AGAIN = "save the adapter again with peft's save_pretrained"


class AdapterWeights(NamedTuple):
    """Figures of an adapter's tensors."""

    tensors: int
    parameters: int
    dtypes: list[str]
    """As in the file, sorted."""
    modules: list[str]
    """Last parts of the names of the adapted layers, sorted."""


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


def read_weights(path: Path, config: AdapterConfig) -> AdapterWeights:
    """Check the file against the configuration. Raises InvalidRequest and OSError."""
    with path.open("rb") as file:
        tensors = _read_tensors(file, path.stat().st_size)
    modules = _check_names(tensors, config)
    return AdapterWeights(
        tensors=len(tensors),
        parameters=sum(prod(tensor.shape) for tensor in tensors.values()),
        dtypes=sorted({tensor.dtype for tensor in tensors.values()}),
        modules=sorted({module.rpartition(".")[2] for module in modules}),
    )


def refusal(detail: str) -> InvalidRequest:
    return InvalidRequest.at(pointer_of(["file", ADAPTER_WEIGHTS_FILE]), detail)


def _shown(name: str) -> str:
    text = ascii(name)[1:-1]
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _read_tensors(file: BinaryIO, size: int) -> dict[str, _Tensor]:
    start = file.read(512)
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8 or start[8:9] != b"{":
        kind = signed_kind(start) or page_kind(start)
        if kind is not None and ("LFS" in kind.name or "HTML" in kind.name):
            raise refusal(f"is {kind.name}, not the weights; {kind.remedy}")
        if kind is not None:
            raise refusal(f"is {kind.name}, not a safetensors file: {_SAVE_AGAIN}")
        if size >= 8 and start[8:9] == b"{" and length <= MAX_HEADER_BYTES:
            raise refusal("is cut off within its header: upload the whole file")
        raise refusal(f"is no safetensors file: {_SAVE_AGAIN}")
    if length > MAX_HEADER_BYTES:
        raise refusal(f"has a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}")
    file.seek(8)
    header = _header(file.read(length))
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, _Tensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor, begin, end = _tensor(name, entry)
        tensors[name] = tensor
        spans.append((begin, end, name))
    if not tensors:
        raise refusal(f"holds no tensors: {_SAVE_AGAIN}")
    _check_spans(spans, size - 8 - length)
    return tensors


def _header(content: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a name occurs twice")
        return fields

    try:
        header = json.loads(content.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = first_line(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise refusal(f"has a header that cannot be read: {reason}; {_SAVE_AGAIN}") from error
    if not isinstance(header, dict):
        raise refusal(f"has a header that is no object: {_SAVE_AGAIN}")
    return header


def _tensor(name: str, entry: Any) -> tuple[_Tensor, int, int]:
    """Return a tensor and the span of its data. Raises InvalidRequest."""
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    shape, offsets = _counts(fields.get("shape")), _counts(fields.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise refusal(f"{_shown(name)}: its entry has no dtype, shape and offsets; {_SAVE_AGAIN}")
    if dtype not in _BITS:
        raise refusal(
            f"{_shown(name)} is of the type {_shown(dtype)[:20]}; adapters are in F32, F16 or BF16"
        )
    elements, (begin, end) = prod(shape), offsets
    if elements > _MAX_ELEMENTS or end - begin != elements * _BITS[dtype] // 8:
        raise refusal(
            f"{_shown(name)}: its shape does not fit its data, which is damaged; {_SAVE_AGAIN}"
        )
    return _Tensor(dtype, shape), begin, end


def _counts(values: Any) -> tuple[int, ...] | None:
    """Return a short list of nonnegative numbers as a tuple; None for anything else."""
    if not isinstance(values, list) or len(values) > _MAX_DIMENSIONS:
        return None
    are_counts = all(type(value) is int and 0 <= value <= _MAX_ELEMENTS for value in values)
    return tuple(values) if are_counts else None


def _check_spans(spans: list[tuple[int, int, str]], size: int) -> None:
    """Raise InvalidRequest unless the tensors cover the data once, without gaps."""
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            problem = "overlaps another tensor" if begin < position else "follows a gap"
            raise refusal(f"{_shown(name)}: its data {problem}; {_SAVE_AGAIN}")
        position = end
    if position > size:
        raise refusal(
            f"is cut off: it has {size:,} of {position:,} bytes of data; upload the whole file"
        )
    if position < size:
        raise refusal(f"has {size - position:,} bytes after its last tensor; {_SAVE_AGAIN}")


def _check_names(tensors: dict[str, _Tensor], config: AdapterConfig) -> list[str]:
    """Return the adapted layers. Raises InvalidRequest unless they are those of a LoRA adapter."""
    sides: dict[str, dict[str, _Tensor]] = {"A": {}, "B": {}}
    magnitudes: dict[str, _Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith(_PREFIX):
            raise refusal(
                f"{_shown(name)} is not a name that peft writes ({_PREFIX}…): {_SAVE_AGAIN}"
            )
        path = name.removeprefix(_PREFIX)
        if match := _MATRIX.fullmatch(path):
            sides[match["side"]][match["module"]] = tensor
        elif match := _MAGNITUDE.fullmatch(path):
            magnitudes[match["module"]] = tensor
        elif not (path.endswith(".bias") and config.bias != "none"):
            raise refusal(_unsupported(path))
    if not sides["A"]:
        raise refusal(f"holds no matrices of a LoRA adapter: {_SAVE_AGAIN}")
    _same_modules(sides["A"], sides["B"], "lora_A", "lora_B")
    for module, a in sides["A"].items():
        _check_ranks(module, a, sides["B"][module], config)
    if config.use_dora:
        _same_modules(sides["A"], magnitudes, "lora_A", "lora_magnitude_vector")
    elif magnitudes:
        raise refusal(
            f"{_shown(next(iter(magnitudes)))} has a DoRA magnitude, but use_dora is false in "
            "adapter_config.json: upload files that belong together"
        )
    return list(sides["A"])


def _unsupported(path: str) -> str:
    shown = _shown(path)
    if path.endswith(".bias"):
        return f"{shown} is a bias, but bias is none in adapter_config.json"
    if "lora_embedding_" in path:
        return (
            f"{shown} adapts an embedding, which is not supported: merge the adapter with peft and "
            "use the merged model as base_model"
        )
    if "lora_" in path:
        return f"{shown} is no matrix of an ordinary LoRA adapter: {_SAVE_AGAIN}"
    return (
        f"{shown} is a whole weight of the base model, which is not supported. Where the "
        "vocabulary is the base model's own, save with save_embedding_layers=False; else merge "
        "the adapter with peft and use the merged model as base_model"
    )


def _same_modules(
    first: Iterable[str], second: Iterable[str], first_name: str, second_name: str
) -> None:
    alone = sorted({*first} ^ {*second})
    if alone:
        has, lacks = (first_name, second_name) if alone[0] in first else (second_name, first_name)
        raise refusal(f"{_shown(alone[0])} has {has} but no {lacks}: {_SAVE_AGAIN}")


def _check_ranks(module: str, a: _Tensor, b: _Tensor, config: AdapterConfig) -> None:
    if len(a.shape) != 2 or len(b.shape) != 2 or not all((*a.shape, *b.shape)):
        raise refusal(f"{_shown(module)}: lora_A and lora_B must be matrices; {_SAVE_AGAIN}")
    rank = a.shape[0]
    if rank != b.shape[1]:
        raise refusal(
            f"{_shown(module)}: lora_A has the rank {rank} and lora_B the rank {b.shape[1]}; "
            f"{_SAVE_AGAIN}"
        )
    # The matrices of all experts are stacked in the adapter of a parameter.
    fits = any(
        rank == expected or (config.target_parameters and rank % expected == 0)
        for expected in config.ranks
    )
    if not fits:
        ranks = " or ".join(map(str, sorted(config.ranks)))
        raise refusal(
            f"{_shown(module)} has the rank {rank}, but adapter_config.json says {ranks}: upload "
            "files that belong together"
        )
