"""A merged model written a file at a time: what is in memory is one file's weights, not a model's.

Every weight of the base model's files is read, merged where the adapter has an update for it,
rounded once and written under the name that it had, in the same order. So the merged model opens
wherever the base model does.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from service.domain.errors import ProgramFailure
from service.domain.spec import QuantizationSection
from service.domain.states import FailureReason
from worker.merging.base_files import BaseFiles
from worker.merging.updates import LowRank, Replaced, Stacked

Updates = Mapping[str, LowRank | Stacked | Replaced]
Write = Callable[[str, Callable[[], None]], None]
"""Called with a file's name and what writes it: waits where the disk is full."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """Which weights the training saw after a way through 4 bits, and what that was."""

    names: frozenset[str]
    section: QuantizationSection
    dtype: torch.dtype
    """What they were loaded as before."""
    device: torch.device
    """Where: kinds of devices may round at other places."""

    def seen(self, weight: torch.Tensor) -> torch.Tensor:
        """What the training saw of a weight: on the same kind of device the same numbers."""
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(
            weight.to(self.device, self.dtype).contiguous(),
            quant_type=self.section.bnb_4bit_quant_type,
            compress_statistics=self.section.bnb_4bit_use_double_quant,
        )
        found: torch.Tensor = functional.dequantize_4bit(packed, state)
        return found.reshape(weight.shape).to(weight.device)


def hindrance(base: BaseFiles, updates: Updates) -> str | None:
    """Why the weights cannot be merged one by one; None if they can."""
    for name, update in updates.items():
        if name not in base:
            return f"the base model's files have no weight named {name}"
        if base.shape(name) != update.shape:
            return (
                f"the base model's files hold {name} in the shape {base.shape(name)}, and the "
                f"adapter is for {update.shape}"
            )
    return None


def write_merged(
    base: BaseFiles,
    target: Path,
    updates: Updates,
    quantized: Quantized | None,
    dtype: torch.dtype,
    most: int,
    write: Write,
    tick: Callable[[], None],
) -> None:
    """Write all weight files into `target`, of at most `most` bytes where a weight is no larger,
    and the index where there are several. `tick` is called after each weight.

    Raises ProgramFailure(invalid_spec) for a weight that `dtype` has no numbers for.
    """
    shards = in_shards([(name, base.size(name, dtype)) for name in base.names], most)
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        tensors = {}
        for name in names:
            tensors[name] = _merged(base, name, updates.get(name), quantized, dtype)
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


def in_shards(sizes: Sequence[tuple[str, int]], most: int) -> list[list[str]]:
    """Names in their order, in as few files in a row as `most` bytes each allow."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes:
        if not shards or size > room:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


def _merged(
    base: BaseFiles,
    name: str,
    update: LowRank | Stacked | Replaced | None,
    quantized: Quantized | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    weight = base.read(name)
    kind = base.merged_dtype(name, dtype)
    if kind is None:
        if update is None:
            return weight.contiguous()
        kind = weight.dtype
    if quantized is not None and name in quantized.names:
        weight = quantized.seen(weight)
    merged = weight.to(kind) if update is None else update.applied(weight, kind)
    # Else nothing is rounded to fewer numbers than the base model's own.
    if (update is not None or kind == torch.float16) and not bool(torch.isfinite(merged).all()):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The merged weight {name} has values that {str(kind).removeprefix('torch.')} has no "
            "numbers for; ask for dtype bfloat16 or float32.",
        )
    return merged.contiguous()


def write_json(write: Write, path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"

    def written() -> None:
        path.write_text(text, "utf-8")

    write(path.name, written)
