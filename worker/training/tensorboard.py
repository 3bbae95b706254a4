"""TensorBoard's event file, with every step once even after interruptions."""

import io
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from worker.runtime.append_log import AppendLog

_PATTERN = "events.out.tfevents.*"


class TensorBoardWriter:
    """Writes scalars under the names of transformers' callback: train/loss, eval/loss …

    TensorBoard's own writer uses a thread; after one failed write it raises that error at every
    later call, and loses the queue. Here records wait in memory while the disk is full.
    """

    def __init__(self, directory: Path) -> None:
        """Create a file in `directory`; files of an earlier attempt are removed."""
        for earlier in directory.glob(_PATTERN):
            earlier.unlink()
        name = _PATTERN.replace(
            "*", f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        )
        self._records = AppendLog(directory / name)
        self._event(file_version="brain.Event:2")

    def write(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [
            Summary.Value(
                tag=f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}",
                simple_value=value,
            )
            for name, value in values.items()
        ]
        self._event(step=step, summary=Summary(value=scalars))

    def replay(self, history: Iterable[Mapping[str, float]]) -> None:
        """Write the metrics of an earlier attempt: entries of trainer_state's log_history."""
        for entry in history:
            values = {name: entry[name] for name in entry if name not in ("epoch", "step")}
            self.write(values, int(entry["step"]))

    def flush(self) -> None:
        """Write the pending records. Raises OSError (ENOSPC, EDQUOT) while the disk is full."""
        self._records.flush()

    def _event(self, **fields: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(wall_time=time.time(), **fields)
        RecordWriter(record).write(event.SerializeToString())
        self._records.append(record.getvalue())
