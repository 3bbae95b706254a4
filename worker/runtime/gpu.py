"""Memory of the GPUs that this process uses."""

import torch


def peak_gpu_memory() -> int | None:
    """The most that torch has taken from the GPUs for itself so far, in bytes, summed over them.

    None where the process uses none. What other processes hold on the same GPU is not in it.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return sum(
        torch.cuda.max_memory_reserved(number) for number in range(torch.cuda.device_count())
    )
