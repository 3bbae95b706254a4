"""Lazy access to the weights in a base model's files."""

import json
from collections import Counter
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import safe_open

from worker.modeling.model_files import read_weight_files

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Floating-point dtypes of safetensors; weights of all other dtypes are copied unchanged."""
_BLOCKS, _SCALES = "_blocks", "_scales"


class BaseFiles:
    """The weights by name, in the order of the files.

    Invariant: only the weights that `read` has returned are in memory; the files are memory-mapped.

    A weight stored in MXFP4 (the experts of gpt-oss) appears under its name in the model, in
    bfloat16, which represents its values exactly.
    """

    def __init__(self, directory: Path) -> None:
        """Open the files. Raises FaultyFile, OSError or SafetensorError for invalid ones."""
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        for file_name in read_weight_files(directory).files:
            file = self._stack.enter_context(safe_open(directory / file_name, framework="pt"))
            self._files |= dict.fromkeys(file.keys(), file)
        quantization = quantization_of(directory)
        self._packed = [] if quantization != "mxfp4" else self._pairs()
        packed_parts = {name + end for name in self._packed for end in (_BLOCKS, _SCALES)}
        self.names = [name for name in self._files if name not in packed_parts] + self._packed
        self._main_dtype = self._most_common_type()

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
        """Return the weight's dtype; None unless it is floating-point of 16 bits or more."""
        if name in self._packed:
            return torch.bfloat16
        return _TYPES.get(self._files[name].get_slice(name).get_dtype())

    def merged_dtype(self, name: str, target_dtype: torch.dtype) -> torch.dtype | None:
        """Return the dtype of the merged weight for a model of `target_dtype`; None: unchanged.

        A float32 weight in a model of 16 bits was stored so on purpose and stays float32.
        """
        own = self.dtype(name)
        keep_float32 = own == torch.float32 and self._main_dtype in (torch.float16, torch.bfloat16)
        return None if own is None or keep_float32 else target_dtype

    def size(self, name: str, target_dtype: torch.dtype) -> int:
        """Return the bytes of the merged weight."""
        kind = self.merged_dtype(name, target_dtype) or self.dtype(name)
        if kind is not None:
            return prod(self.shape(name)) * kind.itemsize
        return int(self.read(name).nbytes)

    def read(self, name: str) -> torch.Tensor:
        """Return the weight on the CPU. Read-only: its memory may be the mapped file."""
        if name not in self._packed:
            tensor: torch.Tensor = self._files[name].get_tensor(name)
            return tensor
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        blocks = self._files[name + _BLOCKS].get_tensor(name + _BLOCKS)
        scales = self._files[name + _SCALES].get_tensor(name + _SCALES)
        whole = torch.empty(self.shape(name), dtype=torch.bfloat16)
        for expert in range(len(blocks)):  # converting takes several times an expert's memory
            index = slice(expert, expert + 1)
            whole[index] = convert_moe_packed_tensors(blocks[index], scales[index])
        return whole


def quantization_of(directory: Path) -> str | None:
    """Return the quantization method of a model's files; None if they are not quantized."""
    config = json.loads((directory / "config.json").read_text())
    section = config.get("quantization_config")
    return None if section is None else str(section.get("quant_method"))
