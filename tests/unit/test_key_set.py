"""A set of keys holds what was added, in little memory."""

import tracemalloc

from service.artifacts.key_set import KeySet


def test_it_holds_what_was_added_and_nothing_else():
    keys = KeySet(f"runs/{number}" for number in range(0, 1000, 2))
    assert [number for number in range(1000) if f"runs/{number}" in keys] == list(range(0, 1000, 2))
    keys.add("runs/1")
    assert "runs/1" in keys
    assert "runs/3" not in keys
    assert len(keys) == 501
    assert "x" not in KeySet()


def test_a_key_takes_a_few_bytes():
    assert "x" not in KeySet(["y"])  # what it imports is not counted
    tracemalloc.start()
    try:
        keys = KeySet(f"runs/run_{number:026d}/job/1/adapter.bin" for number in range(100_000))
        assert "x" not in keys
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
