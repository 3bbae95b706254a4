"""Memory that did not suffice: how it is recognised, and for whose rows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason

Batch = Literal["train", "eval"]

# What torch's allocator for the CPU says, and CUDA and NCCL where its own allocator was
# not the one to ask.
_CPU_SAID = "DefaultCPUAllocator"
_GPU_SAID = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cuda failure 2")


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or _CPU_SAID in str(error) or _is_gpus(error)


def _is_gpus(error: BaseException | None) -> bool:
    torch = sys.modules.get("torch")  # never imported from here: see worker.runtime.launch
    if torch is not None and isinstance(error, torch.OutOfMemoryError):  # the CPU's is another
        return True
    return any(said in str(error) for said in _GPU_SAID)


class BatchTooLarge(ProgramFailure):
    """A forward or backward pass did not fit into memory; with fewer rows another one may."""

    def __init__(self, batch: Batch, detail: str, size: int | None = None) -> None:
        """`size` is the most rows of that pass, where this process made it."""
        super().__init__(FailureReason.OUT_OF_MEMORY, detail)
        self.batch: Batch = batch
        self.size = size


def exceeds_gpu_memory(error: BaseException) -> bool:
    """Whether it was the GPU's memory that did not suffice, and fewer rows would not help."""
    if isinstance(error, BatchTooLarge):
        return error.size == 1 and _is_gpus(error.__cause__)
    return _is_gpus(error)


@contextmanager
def detect_out_of_memory(batch: Batch, size: int) -> Iterator[None]:
    """Turn a lack of memory inside into BatchTooLarge; `size` is the most rows of a pass there."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        activity = "training" if batch == "train" else "evaluation"
        rows = (
            f"{size} rows per forward pass."
            if size > 1
            else "1 row per forward pass, and it cannot be made smaller."
        )
        first_line = (str(error).strip().splitlines() or [""])[0][:300]
        detail = f"The machine's memory did not suffice for {activity} with {rows} {first_line}"
        raise BatchTooLarge(batch, detail, size) from error
