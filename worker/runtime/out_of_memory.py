"""Detection of out-of-memory errors, and of the batch that caused them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from service.domain.errors import ProgramFailure, first_line
from service.domain.states import FailureReason

Batch = Literal["train", "eval"]

# Messages of torch's CPU allocator, and of CUDA and NCCL for memory that does not come from torch's
# GPU allocator.
_CPU_MESSAGE = "DefaultCPUAllocator"
_GPU_MESSAGES = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cuda failure 2")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error means that memory of the machine or of a GPU ran out."""
    return isinstance(error, MemoryError) or _CPU_MESSAGE in str(error) or _is_gpu_error(error)


def _is_gpu_error(error: BaseException | None) -> bool:
    torch = sys.modules.get("torch")  # never imported from here: see worker.runtime.launch
    if torch is not None and isinstance(error, torch.OutOfMemoryError):  # the CPU raises another
        return True
    return any(message in str(error) for message in _GPU_MESSAGES)


class BatchTooLarge(ProgramFailure):
    """A forward or backward pass did not fit into memory; one with fewer rows may."""

    def __init__(self, batch: Batch, detail: str, size: int | None = None) -> None:
        """`size` is the maximum number of rows of the pass, if it ran in this process."""
        super().__init__(FailureReason.OUT_OF_MEMORY, detail)
        self.batch: Batch = batch
        self.size = size


def exceeds_gpu_memory(error: BaseException) -> bool:
    """Return True if GPU memory did not suffice and fewer rows would not help."""
    if isinstance(error, BatchTooLarge):
        return error.size == 1 and _is_gpu_error(error.__cause__)
    return _is_gpu_error(error)


@contextmanager
def detect_out_of_memory(batch: Batch, size: int) -> Iterator[None]:
    """Raise BatchTooLarge for an out-of-memory error inside; `size` is the rows per pass."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        activity = "training" if batch == "train" else "evaluation"
        rows = (
            f"{size} rows per forward pass."
            if size > 1
            else "1 row per forward pass, which is the minimum."
        )
        detail = f"Out of memory during {activity} with {rows} {first_line(error)}"
        raise BatchTooLarge(batch, detail, size) from error
