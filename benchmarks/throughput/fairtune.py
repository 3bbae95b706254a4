"""Fairtune itself: the train program's functions with a reporter that only records."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.throughput.rows import examples, in_order, template_of
from benchmarks.throughput.systems import redraw
from benchmarks.throughput.watch import Watch
from benchmarks.throughput.work import Work, spec_of
from service.domain.events import LogEvent, MetricsEvent, WarningEvent
from service.domain.job import Job
from service.domain.spec import RunSpec, overlay
from service.domain.states import Phase


class Listener:
    """Stand-in for the Reporter that records losses, warnings and log messages in memory."""

    is_continued = False

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def emit(self, kind: Any, **fields: Any) -> None:
        if kind is MetricsEvent and "loss" in fields["values"]:
            self._watch.losses.append(fields["values"]["loss"])
        elif kind is WarningEvent:
            self._watch.notes.append(f"{fields['code']}: {fields['detail']}")
        elif kind is LogEvent:
            self._watch.notes.append(fields["message"])

    def flush(self) -> None:
        """Do nothing: no events are pending."""

    def phase(self, phase: Phase) -> None:
        """Ignore phases."""

    def warn(self, code: str, detail: str) -> None:
        self.emit(WarningEvent, code=code, detail=detail)

    def log(self, message: str) -> None:
        self.emit(LogEvent, message=message)


def fairtune(work: Work, directory: Path, watch: Watch) -> list[tuple[list[int], int]]:
    """Do the work of `python -m worker.programs.train` between its phases loading and evaluating.

    `options` are merged into the run specification, section by section: packing, checkpointing,
    rows per pass and everything else are set there.
    """
    from worker.runtime import imports

    model = Path(work.models_dir) / work.model
    imports.load(model, in_4bit=True)
    import bitsandbytes  # noqa: F401 - loaded with the weights; here it counts among the imports

    from worker.programs.build import make_trainer
    from worker.programs.load_model import load_base
    from worker.programs.run_data import Examples
    from worker.runtime.disk_full import DiskSpace
    from worker.runtime.distributed import World
    from worker.runtime.events import StopSignal
    from worker.runtime.launch import Program
    from worker.runtime.ranks import RankGroup
    from worker.training import loop  # noqa: F401 - as above

    watch.imported()
    spec = RunSpec.model_validate(overlay(spec_of(work), work.options))
    listener: Any = Listener(watch)
    stop = StopSignal()
    job = Job(
        job_id="job_benchmark",
        run_id="run_benchmark",
        token=1,
        spec=spec,
        template=template_of(work),
        baseline_template=None,
        models_dir=work.models_dir,
        dataset=work.rows,
        completions=work.completions,
    )
    program = Program(directory, job, listener, stop, DiskSpace(listener, stop), RankGroup())
    base = load_base(model, spec, Path(work.models_dir), listener)
    rows = examples(work, base.tokenizer)
    pad = base.tokenizer.pad_token_id
    board: Any = SimpleNamespace(write=lambda _values, _step: None)
    trainer = make_trainer(program, base.model, World(), Examples(rows, []), pad, board)
    redraw(trainer.model, work.adapter_seed)
    make_step = trainer._step

    def watched() -> Any:
        watch.step_begins()
        result = make_step()
        watch.step_ends()
        return result

    trainer._step = watched  # type: ignore[method-assign]
    trainer.run()
    watch.extra["training"] = spec.training.model_dump()
    return [(row.ids, row.start) for row in in_order(rows, work)]
