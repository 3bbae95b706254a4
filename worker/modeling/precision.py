"""Fallback to float32 on machines that compute slowly in bfloat16."""

import torch

from service.domain.spec import RunSpec


def without_bfloat16(spec: RunSpec, device: torch.device) -> RunSpec | None:
    """Return `spec` with float32 in place of bfloat16; None if no change is needed.

    PyTorch computes products of bfloat16 matrices by oneDNN if the CPU has instructions for them,
    and otherwise by loops of its own, which measured 7 to 100 times as slow as float32
    (benchmarks/results/profiling.md). Every bfloat16 number is a float32 number, so no weight loses
    precision; weights that are not held in 4 bits take twice the memory.
    """
    needs_bfloat16 = spec.training.bf16 or (
        spec.quantization.load_in_4bit and spec.quantization.bnb_4bit_compute_dtype != "float32"
    )
    if device.type != "cpu" or not needs_bfloat16 or has_bfloat16():
        return None
    return spec.model_copy(
        update={
            "training": spec.training.model_copy(update={"bf16": False}),
            "quantization": spec.quantization.model_copy(
                update={"bnb_4bit_compute_dtype": "float32"}
            ),
        }
    )


def has_bfloat16() -> bool:
    """Return True if PyTorch computes products of bfloat16 matrices on this CPU by oneDNN.

    This is the check that PyTorch itself makes; it has no public name.
    """
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
