"""What the machine at hand can compute in, where the specification asks for bfloat16."""

import torch

from service.domain.spec import RunSpec


def without_bfloat16(spec: RunSpec, device: torch.device) -> RunSpec | None:
    """`spec` in float32 instead; None where it stays as it is.

    PyTorch hands products of bfloat16 matrices to oneDNN where the CPU has the instructions for
    them, and else to loops of its own, which measured 7 to 100 times as slow as float32
    (docs/performance.md). Every bfloat16 number is a float32 number, so nothing is rounded
    that would not have been; what is not held in 4 bits takes twice the memory.
    """
    asked = spec.training.bf16 or (
        spec.quantization.load_in_4bit and spec.quantization.bnb_4bit_compute_dtype != "float32"
    )
    if device.type != "cpu" or not asked or has_bfloat16():
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
    """Whether PyTorch computes products of bfloat16 matrices on this CPU by oneDNN.

    The question that PyTorch itself asks before it does; it has no public name.
    """
    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
