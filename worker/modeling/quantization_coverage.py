"""Share of a loaded model that is held in 4 bits, by parameters and by bytes."""

import re
import sys
from dataclasses import dataclass, field
from typing import Any

MAX_LISTED_KINDS = 8
"""Kinds of matrices that a warning lists, the largest first."""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(slots=True)
class Amount:
    """Number of matrices and of parameters, and the bytes that they take in memory."""

    matrices: int = 0
    parameters: int = 0
    bytes: int = 0

    def add(self, parameters: int, size: int) -> None:
        self.matrices += 1
        self.parameters += parameters
        self.bytes += size


@dataclass(frozen=True, slots=True)
class Coverage:
    in_all: Amount = field(default_factory=Amount)
    in_4bit: Amount = field(default_factory=Amount)
    """Its bytes are the packed weights and their scales."""
    left_out: dict[str, Amount] = field(default_factory=dict)
    """Matrices not in 4 bits, by name with `*` for numbers, the largest first. Embeddings, output
    layer and biases, which are never quantized, are omitted (but count in `in_all`)."""

    @classmethod
    def of(cls, model: Any) -> "Coverage":
        bnb = sys.modules.get("bitsandbytes")  # None: never imported, so no layer is 4-bit
        outer = {id(model.get_input_embeddings().weight)}
        if (head := model.get_output_embeddings()) is not None:
            outer.add(id(head.weight))
        coverage, left_out = cls(), dict[str, Amount]()
        for name, parameter in model.named_parameters():
            if bnb is not None and isinstance(parameter, bnb.nn.Params4bit):
                # Two values a byte: the packed tensor does not have the weight's shape.
                count = parameter.quant_state.shape.numel()
                size = parameter.nbytes + _scale_bytes(parameter.quant_state)
                coverage.in_4bit.add(count, size)
            else:
                count, size = parameter.numel(), parameter.nbytes
                is_matrix = parameter.dim() >= 2 and not name.endswith("bias")
                if is_matrix and id(parameter) not in outer:
                    left_out.setdefault(_NUMBER.sub("*", name), Amount()).add(count, size)
            coverage.in_all.add(count, size)
        coverage.left_out.update(sorted(left_out.items(), key=lambda kind: -kind[1].bytes))
        return coverage

    @property
    def share(self) -> float:
        """Parameters in 4 bits divided by all parameters."""
        return self.in_4bit.parameters / self.in_all.parameters

    @property
    def share_of_bytes(self) -> float:
        """Bytes of the 4-bit weights, scales included, divided by the bytes of all weights."""
        return self.in_4bit.bytes / self.in_all.bytes

    def summary(self) -> str:
        return (
            f"{self.share:.1%} of the base model's parameters are held in 4 bits "
            f"({_count(self.in_4bit.parameters)} of {_count(self.in_all.parameters)}); they are "
            f"{self.share_of_bytes:.1%} of its bytes "
            f"({_size(self.in_4bit.bytes)} of {_size(self.in_all.bytes)})"
        )

    def warning(self) -> str:
        """Return the summary and the matrices not in 4 bits. Needs at least one of those."""
        kinds = [
            f"{name} ({_count(amount.parameters)} parameters in {amount.matrices} "
            f"{'matrix' if amount.matrices == 1 else 'matrices'}, {_size(amount.bytes)})"
            for name, amount in self.left_out.items()
        ]
        if (more := len(kinds) - MAX_LISTED_KINDS) > 0:
            kinds = [*kinds[:MAX_LISTED_KINDS], f"and {more} more kinds"]
        return (
            f"Only {self.summary()}. bitsandbytes quantizes linear layers only, so these matrices "
            f"are not quantized: {', '.join(kinds)}. lora.target_parameters can adapt them."
        )


def _scale_bytes(state: Any) -> int:
    """Return the bytes of a bitsandbytes QuantState's scales.

    One scale per block, and with double quantization the scales of those scales.
    """
    nested = state.state2.absmax.nbytes if state.nested else 0
    return int(state.absmax.nbytes) + int(nested)


def _count(number: int) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.2f} billion"
    return f"{number / 1e6:.1f} million" if number >= 1e6 else f"{number:,}"


def _size(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.2f} MB"
