"""Communication between the processes that train one run together; a single one sends nothing.

All have the same data, adapter and optimizer. Each takes its share of a step's micro-batches, the
gradients are summed, and all apply the same update, so weights never have to be sent. Every method
here that sends something must be called by all of them, in the same order.
"""

import datetime
import hashlib
import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import distributed

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.runtime.ranks import RankGroup

T = TypeVar("T")

# No timeout: the supervisor decides how long one may wait for another, by its progress limits.
_NO_TIMEOUT = datetime.timedelta(days=1)


class World:
    """All `size` processes of a run, seen from `rank`; small messages use the CPU, gradients the
    GPU.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_rank_zero(self) -> bool:
        """True for the process that writes events and files."""
        return self.rank == 0

    def share(self, items: Iterable[T]) -> list[tuple[int, T]]:
        """Return this rank's share of a list that all ranks have, each item with its index."""
        return list(enumerate(items))[self.rank :: self.size]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the elementwise sum over all ranks, as float64 on the CPU."""
        values = values.to("cpu", torch.float64, copy=True)
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast_flag(self, flag: bool) -> bool:
        """Return rank 0's `flag` on all ranks."""
        return bool(self.sum(torch.tensor(float(flag and self.is_rank_zero))).item())

    def sum_gradients(self, parameters: Iterable[Any], loss: torch.Tensor) -> torch.Tensor:
        """Sum the gradients of the trainable parameters in place; return the sum of `loss`.

        One message, in float32. A parameter without a gradient on every rank keeps none, so that
        the optimizer skips it, as it does in a single process.
        """
        if self.size == 1:
            return loss
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        has_gradient = [0.0 if parameter.grad is None else 1.0 for parameter in trainable]
        message = torch.cat(
            [
                *(
                    torch.zeros(parameter.numel(), device=loss.device)
                    if parameter.grad is None
                    else parameter.grad.flatten().float()
                    for parameter in trainable
                ),
                torch.tensor(has_gradient, device=loss.device),
                loss.detach().reshape(1).float(),
            ]
        )
        distributed.all_reduce(message)
        lengths = [*(parameter.numel() for parameter in trainable), len(trainable), 1]
        *gradients, counts, total = torch.split(message, lengths)
        for parameter, gradient, count in zip(trainable, gradients, counts.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None
        return torch.as_tensor(total[0])

    def check_identical(self, tensors: Iterable[torch.Tensor], moment: str) -> None:
        """Raise ProgramFailure(crashed) if this rank's tensors differ from those of rank 0."""
        if self.size == 1:
            return
        digest = hashlib.sha256(moment.encode())
        for tensor in tensors:
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(data.numpy().tobytes())
        own = torch.tensor(list(digest.digest()), dtype=torch.uint8)
        reference = own.clone()
        distributed.broadcast(reference, 0)
        if not torch.equal(own, reference):
            raise ProgramFailure(
                FailureReason.CRASHED,
                f"The weights of rank {self.rank} (of {self.size} processes) differ from those of "
                f"rank 0 at {moment}.",
            )


def join(ranks: RankGroup, num_processes: int) -> World:
    """Connect to the other ranks; all `num_processes` are connected when it returns.

    Each uses the GPU with its rank's number, if the machine has GPUs. Raises ProgramFailure:
    invalid_spec if there are fewer GPUs than processes, internal if not all processes joined.
    """
    if ranks.size != num_processes:
        raise _incomplete(ranks.size, num_processes)
    if num_processes == 1:
        return World()
    backend = "gloo"
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if gpus < ranks.size:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"resources.num_processes is {ranks.size}, one for each GPU, but the worker's "
                f"machine has {gpus}.",
            )
        torch.cuda.set_device(ranks.rank)
        backend = "cpu:gloo,cuda:nccl"
    # All run on one machine, so their messages need not be visible outside it.
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    assert ranks.port is not None
    store = distributed.TCPStore(  # type: ignore[attr-defined]  # documented there, but untyped
        "127.0.0.1",
        ranks.port,
        ranks.size,
        is_master=ranks.is_rank_zero,
        timeout=_NO_TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=ranks.listener,
    )
    distributed.init_process_group(
        backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=_NO_TIMEOUT
    )
    world = World(ranks.rank, ranks.size)
    # Some launchers silently run a single process where several were requested.
    joined = int(world.sum(torch.ones(())).item())
    if not joined == distributed.get_world_size() == num_processes:
        raise _incomplete(joined, num_processes)
    return world


def _incomplete(joined: int, num_processes: int) -> ProgramFailure:
    return ProgramFailure(
        FailureReason.INTERNAL,
        f"resources.num_processes is {num_processes}, but processes that train together: {joined}.",
    )
