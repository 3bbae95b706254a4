"""Streamed writing of a merged model: one file's weights are in memory, not the whole model.

Every weight of the base model's files is read, merged if the adapter has an update for it, rounded
once and written under its original name, in the original order. The merged model can therefore be
loaded wherever the base model can.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from service.domain.training_spec import QuantizationSection
from worker.merging.base_files import BaseFiles
from worker.merging.updates import LowRank, Replaced, Stacked

Updates = Mapping[str, LowRank | Stacked | Replaced]
Write = Callable[[str, Callable[[], None]], None]
"""Takes a file's name and the function that writes it; waits while the disk is full."""


@dataclass(frozen=True, slots=True)
class QuantizedWeights:
    """The weights that were held in 4 bits during training, and how they were quantized."""

    names: frozenset[str]
    section: QuantizationSection
    dtype: torch.dtype
    """Their dtype before quantization."""
    device: torch.device
    """The device that quantized them: types of devices may round differently."""
    transposed: frozenset[str] = frozenset()
    """Names of weights that were transposed before they were quantized."""

    def round_trip_of(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight of that name as `quantization_round_trip` gives it."""
        if name in self.transposed:
            return self.quantization_round_trip(weight.t()).t().contiguous()
        return self.quantization_round_trip(weight)

    def quantization_round_trip(self, weight: torch.Tensor) -> torch.Tensor:
        """Quantize and dequantize a weight; on the same type of device the values of training."""
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(
            weight.to(self.device, self.dtype).contiguous(),
            quant_type=self.section.bnb_4bit_quant_type,
            compress_statistics=self.section.bnb_4bit_use_double_quant,
        )
        dequantized: torch.Tensor = functional.dequantize_4bit(packed, state)
        return dequantized.reshape(weight.shape).to(weight.device)


def unstreamable_reason(base: BaseFiles, updates: Updates) -> str | None:
    """Return why the weights cannot be merged one by one; None if they can."""
    for name, update in updates.items():
        if name not in base:
            return f"the base model's files have no weight named {name}"
        if base.shape(name) != update.shape:
            return (
                f"{name} has the shape {base.shape(name)} in the base model's files, but the "
                f"adapter is for the shape {update.shape}"
            )
    return None


def write_merged(
    base: BaseFiles,
    target: Path,
    updates: Updates,
    quantized: QuantizedWeights | None,
    dtype: torch.dtype,
    max_shard_bytes: int,
    write: Write,
    tick: Callable[[], None],
) -> None:
    """Write all weight files into `target`, and the index if there are several files.

    A file has at most `max_shard_bytes`, or a single weight. `tick` is called after each weight.
    Raises ProgramFailure(invalid_spec) for a weight that overflows `dtype`.
    """
    shards = plan_shards([(name, base.size(name, dtype)) for name in base.names], max_shard_bytes)
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        tensors = {}
        for name in names:
            tensors[name] = _merge_weight(base, name, updates.get(name), quantized, dtype)
            total += tensors[name].nbytes
            tick()
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        _save(write, target / file, tensors)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(write, target / "model.safetensors.index.json", index)


def _save(write: Write, path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write(path.name, lambda: save_file(tensors, path, metadata={"format": "pt"}))


def plan_shards(sizes: Sequence[tuple[str, int]], max_shard_bytes: int) -> list[list[str]]:
    """Return the names of each file, filling files of at most `max_shard_bytes` in order."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes:
        if not shards or size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _merge_weight(
    base: BaseFiles,
    name: str,
    update: LowRank | Stacked | Replaced | None,
    quantized: QuantizedWeights | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    weight = base.read(name)
    merged_dtype = base.merged_dtype(name, dtype)
    if merged_dtype is None:
        if update is None:
            return weight.contiguous()
        merged_dtype = weight.dtype
    if quantized is not None and name in quantized.names:
        weight = quantized.round_trip_of(name, weight)
    merged = weight.to(merged_dtype) if update is None else update.apply(weight, merged_dtype)
    # In all other cases no value can overflow.
    if (update is not None or merged_dtype == torch.float16) and not bool(
        torch.isfinite(merged).all()
    ):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The merged weight {name} has values that overflow "
            f"{str(merged_dtype).removeprefix('torch.')}; set dtype to bfloat16 or float32.",
        )
    return merged.contiguous()


def write_json(write: Write, path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"

    def written() -> None:
        path.write_text(text, "utf-8")

    write(path.name, written)
