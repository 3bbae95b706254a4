"""Where a program can be held, and how its memory can be made too small."""

import contextlib
import json
from pathlib import Path
from typing import Any

from sitecustomize import FOLDER, reach, seen, step_of, wraps


@wraps("worker.modeling.load", "load_base")
def loading(load_base: Any) -> Any:
    def held(*args: Any, **kwargs: Any) -> Any:
        reach("loading")
        return load_base(*args, **kwargs)

    return held


_place = {"step": 0, "micro": 0}


@wraps("worker.training.loop", "Trainer._step")
def counted(step: Any) -> Any:
    def counting(self: Any) -> Any:
        _place.update(step=self.state.step + 1, micro=0)
        return step(self)

    return counting


@wraps("worker.training.padded", "Padded.loss_sum")
def mid_step(loss_sum: Any) -> Any:
    """Between two micro-batches of a step; and where a machine's memory is said to end.

    memory.json: {"train": most rows of a micro-batch, "eval": …}
    """

    def held(self: Any, micro: Any) -> Any:
        import torch

        training = torch.is_grad_enabled()
        if training:
            _place["micro"] += 1
            if _place["micro"] == 2:
                reach("mid_step", step=_place["step"])
        with contextlib.suppress(FileNotFoundError):
            most = json.loads((FOLDER / "memory.json").read_text())
            if len(micro) > most.get("train" if training else "eval", len(micro)):
                raise torch.OutOfMemoryError("out of memory (a test says so)")
        return loss_sum(self, micro)

    return held


@wraps("worker.training.checkpoints", "_sync")
def mid_save(sync: Any) -> Any:
    """All files of a checkpoint are written aside, the directory does not have its name yet."""

    def held(path: Path) -> None:
        sync(path)
        if path.name == "manifest.json":
            reach("mid_save", step=step_of(path))

    return held


@wraps("worker.training.checkpoints", "write")
def after_save(write: Any) -> Any:
    """A checkpoint is complete in the job directory, and no event says so yet."""

    def held(directory: Path, **kwargs: Any) -> Any:
        written = write(directory, **kwargs)
        reach("after_save", step=step_of(directory))
        return written

    return held


@wraps("worker.programs.write_results", "write_results")
def at_end(write_results: Any) -> Any:
    """The last step is done, and scored; the result is about to be written."""

    def held(*args: Any, **kwargs: Any) -> Any:
        reach("at_end")
        return write_results(*args, **kwargs)

    return held


@wraps("worker.merging.streamed", "_save")
def mid_merge(save: Any) -> Any:
    """Some of a merged model's file is written in the job directory."""

    def held(write: Any, path: Path, *args: Any) -> None:
        path.write_bytes(b"half a file")
        reach("mid_merge")
        save(write, path, *args)

    return held


@wraps("worker.runtime.events", "Reporter.emit")
def before_announce(emit: Any) -> Any:
    """A merged model is complete, and no event says so yet (afterwards: `announced`)."""

    def held(self: Any, kind: Any, **fields: Any) -> None:
        if kind.__name__ != "MergedEvent":
            return emit(self, kind, **fields)
        reach("before_announce")
        emit(self, kind, **fields)
        reach("announced")
        return None

    return held


@wraps("worker.runtime.events", "StopSignal.on_signal")
def program_told(on_signal: Any) -> Any:
    """Notes that the program knows that it is to stop."""

    def noting(self: Any, *args: Any) -> Any:
        seen("program_told")
        return on_signal(self, *args)

    return noting
