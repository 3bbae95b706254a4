"""What the processes that train one run together tell each other. One alone tells nobody anything.

All have the same data, adapter and optimizer. Each takes its share of a step's micro-batches, the
gradients are summed, and all make the same update: no process ever has to be sent weights. Every
method here that sends something must be called by all of them, in the same order.
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

# How long one may wait for another is the supervisor's to judge, by its limits on progress.
_FOR_EVER = datetime.timedelta(days=1)


class World:
    """`size` processes, this one being `number`. What is sent goes by the CPU, gradients by GPU."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the one that writes events and files."""
        return self.rank == 0

    def share(self, items: Iterable[T]) -> list[tuple[int, T]]:
        """The part of this process of what all see alike, each with its number in the whole."""
        return list(enumerate(items))[self.rank :: self.size]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Over all processes, element by element; float64 on the CPU."""
        values = values.to("cpu", torch.float64, copy=True)
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast_flag(self, flag: bool) -> bool:
        """What the leader has found."""
        return bool(self.sum(torch.tensor(float(flag and self.is_rank_zero))).item())

    def sum_gradients(self, parameters: Iterable[Any], loss: torch.Tensor) -> torch.Tensor:
        """Sum the gradients of those that are trained, in place, and return the sum of `loss`.

        In one message, in float32. Where no process has a gradient for a parameter it keeps none,
        and so the optimizer leaves it alone, as it does in one process.
        """
        if self.size == 1:
            return loss
        trained = [one for one in parameters if one.requires_grad]
        given = [0.0 if one.grad is None else 1.0 for one in trained]
        message = torch.cat(
            [
                *(
                    torch.zeros(one.numel(), device=loss.device)
                    if one.grad is None
                    else one.grad.flatten().float()
                    for one in trained
                ),
                torch.tensor(given, device=loss.device),
                loss.detach().reshape(1).float(),
            ]
        )
        distributed.all_reduce(message)
        lengths = [*(one.numel() for one in trained), len(trained), 1]
        *pieces, known, total = torch.split(message, lengths)
        for one, piece, count in zip(trained, pieces, known.tolist(), strict=True):
            one.grad = piece.view_as(one).to(one.dtype) if count else None
        return torch.as_tensor(total[0])

    def check_identical(self, tensors: Iterable[torch.Tensor], words: str) -> None:
        """Raise ProgramFailure(crashed) here if this process holds other values than the leader."""
        if self.size == 1:
            return
        digest = hashlib.sha256(words.encode())
        for one in tensors:
            plain = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(plain.numpy().tobytes())
        own = torch.tensor(list(digest.digest()), dtype=torch.uint8)
        leaders = own.clone()
        distributed.broadcast(leaders, 0)
        if not torch.equal(own, leaders):
            raise ProgramFailure(
                FailureReason.CRASHED,
                f"Process {self.rank} of {self.size} holds other weights than the first one at "
                f"{words}.",
            )


def join(ranks: RankGroup, asked: int) -> World:
    """Meet the other processes; all of them are there when it returns, `asked` in number.

    Each has the GPU of its number, where the machine has any. Raises ProgramFailure: invalid_spec
    where it has fewer than processes, internal where not all came.
    """
    if ranks.size != asked:
        raise _not_all(ranks.size, asked)
    if asked == 1:
        return World()
    backend = "gloo"
    if torch.cuda.is_available():
        available = torch.cuda.device_count()
        if available < ranks.size:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"resources.num_processes is {ranks.size}, one for each GPU, but the worker's "
                f"machine has {available}.",
            )
        torch.cuda.set_device(ranks.rank)
        backend = "cpu:gloo,cuda:nccl"
    # They are on one machine: what they say need not be heard outside of it.
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    assert ranks.port is not None
    store = distributed.TCPStore(  # type: ignore[attr-defined]  # it is documented there
        "127.0.0.1",
        ranks.port,
        ranks.size,
        is_master=ranks.is_rank_zero,
        timeout=_FOR_EVER,
        wait_for_workers=False,
        master_listen_fd=ranks.listener,
    )
    distributed.init_process_group(
        backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=_FOR_EVER
    )
    world = World(ranks.rank, ranks.size)
    # Launchers have been known to run one process in silence where several were asked for.
    there = int(world.sum(torch.ones(())).item())
    if not there == distributed.get_world_size() == asked:
        raise _not_all(there, asked)
    return world


def _not_all(there: int, asked: int) -> ProgramFailure:
    return ProgramFailure(
        FailureReason.INTERNAL,
        f"resources.num_processes is {asked}, but processes that train together: {there}.",
    )
