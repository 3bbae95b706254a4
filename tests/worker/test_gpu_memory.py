"""The memory that a program says it holds on its GPUs."""

import torch

from worker.runtime.gpu import peak_gpu_memory


def test_without_a_gpu_there_is_none_to_tell_of():
    assert peak_gpu_memory() is None


def test_several_gpus_are_added_up(monkeypatch):
    held = {0: 3_000_000_000, 1: 4_000_000_000}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(held))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", held.__getitem__)
    assert peak_gpu_memory() == 7_000_000_000
