"""A base model's weights as its files hold them, each read when it is asked for."""

import json
from collections import Counter
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import safe_open

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Of safetensors, those of numbers that are trained; all others are copied as they are."""
_BLOCKS, _SCALES = "_blocks", "_scales"


class BaseFiles:
    """Invariant: no more of the files is in memory than what `read` has returned; the rest is
    mapped from the disk.

    What is stored in MXFP4 (the experts of gpt-oss) is one weight here, under the name that it
    has in the model, in bfloat16, in which its values are exact.
    """

    def __init__(self, directory: Path) -> None:
        """Raises OSError, SafetensorError, ValueError for files that are no weights."""
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        index = directory / "model.safetensors.index.json"
        places = ["model.safetensors"]
        if index.is_file():
            places = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        for place in places:
            file = self._stack.enter_context(safe_open(directory / place, framework="pt"))
            self._files |= dict.fromkeys(file.keys(), file)
        method = quantization_of(directory)
        self._packed = [] if method != "mxfp4" else self._pairs()
        hidden = {name + end for name in self._packed for end in (_BLOCKS, _SCALES)}
        self.names = [name for name in self._files if name not in hidden] + self._packed
        self._usual = self._most_common_type()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _pairs(self) -> list[str]:
        names = [name.removesuffix(_BLOCKS) for name in self._files if name.endswith(_BLOCKS)]
        return [name for name in names if name + _SCALES in self._files]

    def _most_common_type(self) -> torch.dtype | None:
        weights = Counter[torch.dtype]()
        for name in self.names:
            if (kind := self.dtype(name)) is not None:
                weights[kind] += prod(self.shape(name))
        return max(weights, key=weights.__getitem__, default=None)

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._packed

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._packed:
            experts, outputs, groups, half = self._shape(name + _BLOCKS)
            return experts, groups * half * 2, outputs
        return self._shape(name)

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype | None:
        """None for what is no floating-point number of 16 bits or more."""
        if name in self._packed:
            return torch.bfloat16
        return _TYPES.get(self._files[name].get_slice(name).get_dtype())

    def merged_dtype(self, name: str, asked: torch.dtype) -> torch.dtype | None:
        """What a weight becomes where `asked` is asked for; None: it stays as it is.

        Float32 beside weights of 16 bits was chosen for this one, and is kept.
        """
        own = self.dtype(name)
        apart = own == torch.float32 and self._usual in (torch.float16, torch.bfloat16)
        return None if own is None or apart else asked

    def size(self, name: str, asked: torch.dtype) -> int:
        """Bytes of the weight once merged."""
        kind = self.merged_dtype(name, asked) or self.dtype(name)
        if kind is not None:
            return prod(self.shape(name)) * kind.itemsize
        return int(self.read(name).nbytes)

    def read(self, name: str) -> torch.Tensor:
        """The weight, on the CPU, not to be changed: the memory may be the file's."""
        if name not in self._packed:
            found: torch.Tensor = self._files[name].get_tensor(name)
            return found
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        blocks = self._files[name + _BLOCKS].get_tensor(name + _BLOCKS)
        scales = self._files[name + _SCALES].get_tensor(name + _SCALES)
        whole = torch.empty(self.shape(name), dtype=torch.bfloat16)
        for expert in range(len(blocks)):  # what it needs meanwhile is several times an expert
            one = slice(expert, expert + 1)
            whole[one] = convert_moe_packed_tensors(blocks[one], scales[one])
        return whole


def quantization_of(directory: Path) -> str | None:
    """What the weights in a model's directory are quantized by; None where they are not."""
    config = json.loads((directory / "config.json").read_text())
    section = config.get("quantization_config")
    return None if section is None else str(section.get("quant_method"))
