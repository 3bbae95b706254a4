"""TensorBoard's event file: every step once, whatever happened on the way."""

import io
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from worker.runtime.append_log import AppendLog

_PATTERN = "events.out.tfevents.*"


class Board:
    """Writes scalars under the names that transformers' callback gives: train/loss, eval/loss …

    TensorBoard's own writer works on a thread; after one failed write it raises that failure at
    every later call, and what was queued is lost. Here records that a full disk has no room for
    wait in memory.
    """

    def __init__(self, directory: Path) -> None:
        """Begin a file in `directory`; those of an earlier start are removed."""
        for earlier in directory.glob(_PATTERN):
            earlier.unlink()
        name = _PATTERN.replace(
            "*", f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        )
        self._records = AppendLog(directory / name)
        self._event(file_version="brain.Event:2")

    def write(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        named = [
            Summary.Value(
                tag=f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}",
                simple_value=value,
            )
            for name, value in values.items()
        ]
        self._event(step=step, summary=Summary(value=named))

    def replay(self, history: Iterable[Mapping[str, float]]) -> None:
        """Write what an earlier attempt logged: entries of trainer_state's log_history."""
        for entry in history:
            values = {name: entry[name] for name in entry if name not in ("epoch", "step")}
            self.write(values, int(entry["step"]))

    def flush(self) -> None:
        """Write what waits. Raises OSError (ENOSPC, EDQUOT) where there is no room for it."""
        self._records.flush()

    def _event(self, **fields: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(wall_time=time.time(), **fields)
        RecordWriter(record).write(event.SerializeToString())
        self._records.append(record.getvalue())
