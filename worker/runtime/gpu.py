"""Memory of the GPUs that this process uses."""

import torch


def peak_gpu_memory() -> int | None:
    """Return the peak memory that torch reserved so far, in bytes, summed over the GPUs.

    None if the process uses no GPU. Memory of other processes on the same GPU is not included.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return sum(
        torch.cuda.max_memory_reserved(number) for number in range(torch.cuda.device_count())
    )
