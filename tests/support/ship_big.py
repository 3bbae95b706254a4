"""A supervisor in a process of its own, whose program leaves one checkpoint of so many bytes.

    python ship_big.py RUN_ID DIRECTORY BYTES

Settings come from FAIRTUNE_* variables. Prints its peak memory before and after, in bytes, as JSON.
"""

import json
import sys
from pathlib import Path

import pytest

from service.context import Context
from service.settings import Settings
from tests.support.attempts import House

PROGRAM = """
size = {size}
place = directory / "checkpoints" / "checkpoint-2"
place.mkdir(parents=True)
digest = hashlib.sha256()
with (place / "adapter.bin").open("wb") as file:
    for number in range(0, size, 1 << 20):
        piece = number.to_bytes(8) * (min(1 << 20, size - number) // 8)
        file.write(piece)
        digest.update(piece)
said = {{"path": "adapter.bin", "size": size, "sha256": digest.hexdigest()}}
say("checkpoint", step=2, epoch=0, path="checkpoints/checkpoint-2", files=[said], metrics={{}},
    best_step=None)
"""


def peak(pid: int | str = "self") -> int:
    """VmHWM of a process, bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    run_id, directory, size = sys.argv[1:]
    context = Context.make(Settings())
    house = House(context, run_id, Path(directory), pytest.MonkeyPatch())
    before = peak()
    house.play(PROGRAM.format(size=int(size)))
    assert house.job.status == "succeeded", house.job.status
    print(json.dumps({"before": before, "after": peak()}))
