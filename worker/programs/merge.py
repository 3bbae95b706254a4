"""A merge job: an adapter becomes part of its base model's weights, and the result is compared.

python -m worker.programs.merge JOB_DIR

In this order, so that never more than one model is in memory, and while weights are written none:

1. the base model as it was trained, with the adapter, scores a sample of the run's rows;
2. the merged weights are written, a file at a time (worker.merging);
3. the merged model is loaded as anybody would, and scores the same sample;
4. where the two say the same, the files are announced, all at once.
"""

from __future__ import annotations

import gc
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from service.domain.errors import ProgramFailure
from service.domain.events import MergedEvent
from service.domain.job import Job
from service.domain.merge import MergeComparison, MergeTask
from service.domain.states import FailureReason, Phase
from worker.runtime import imports
from worker.runtime.events import file_entry
from worker.runtime.launch import Program, launch
from worker.runtime.out_of_memory import does_not_fit_gpu
from worker.runtime.progress import Steps

if TYPE_CHECKING:  # torch and what is on it take seconds; `starting` is said before
    from worker.data.rows import Row
    from worker.merging.comparison import RowScores
    from worker.merging.streamed import QuantizedWeights, Updates

log = logging.getLogger("fairtune")

MERGED = "merged"
"""The merged model's directory."""


def main(program: Program) -> None:
    job, spec, reporter = program.job, program.job.spec, program.reporter
    task, adapter = job.merge, job.adapter
    if task is None or adapter is None:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC, "job.json does not say what to merge: `merge`, `adapter`."
        )
    reporter.phase(Phase.LOADING)
    from worker.data.rows import read_rows
    from worker.modeling.locate import locate

    base = locate(spec.base_model, Path(job.models_dir))
    imports.load(base, in_4bit=spec.quantization.load_in_4bit)
    from worker.merging import comparison

    rows = comparison.comparison_rows(read_rows(program.directory / job.dataset), task)
    steps = Steps(reporter, 2 * len(rows))
    before, updates, quantized = _scored_before(program, task, adapter, base, rows, steps)
    took = steps.took  # and so long the merged model will, or a little more or less
    _release()
    target = program.directory / MERGED
    reporter.phase(Phase.MERGING)
    _write(
        program, task, base, program.directory / adapter, target, updates, quantized, steps, took
    )
    reporter.phase(Phase.EVALUATING)
    after = _scored_after(program, task, target, rows, steps, took)
    found = comparison.compare_scores(task, before, after)
    comparison.check_comparison(program, task, found)
    reporter.phase(Phase.SAVING)
    _announce(program, job, task, target, found, steps)
    reporter.phase(Phase.DONE)


def _scored_before(
    program: Program, task: MergeTask, adapter: str, directory: Path, rows: list[Row], steps: Steps
) -> tuple[RowScores, Updates, QuantizedWeights | None]:
    """The adapter's scores; and what is left of the model afterwards: its updates."""
    from worker.merging.comparison import score_rows
    from worker.merging.streamed import QuantizedWeights
    from worker.merging.updates import names_in_4bit, updates_of
    from worker.programs.load_model import adapted, load

    base, accelerator = load(program, directory)
    model = adapted(program, base.model, adapter)
    program.reporter.phase(Phase.EVALUATING)
    steps.part(len(rows), expected=None, after=None)
    before = score_rows(program, task, rows, base, model, accelerator.device, steps.at)
    quantized = None
    if task.base_weights == "dequantized":
        quantized = QuantizedWeights(
            names=frozenset(names_in_4bit(model)),
            section=program.job.spec.quantization,
            dtype=base.model.dtype,
            device=accelerator.device,
        )
    return before, updates_of(model), quantized


def _release() -> None:
    """Give memory back that no model holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write(
    program: Program,
    task: MergeTask,
    base: Path,
    adapter: Path,
    target: Path,
    updates: Updates,
    quantized: QuantizedWeights | None,
    steps: Steps,
    after: float,
) -> None:
    """All files of the merged model but its card. `after`: seconds that will be needed then.

    Raises ProgramFailure.
    """
    import torch

    from worker.merging.base_files import BaseFiles, quantization_of
    from worker.merging.by_peft import write_merged_by_peft
    from worker.merging.companion_files import write_companion_files
    from worker.merging.streamed import unstreamable_reason, write_merged

    if (method := quantization_of(base)) not in (None, "mxfp4"):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The files of {program.job.spec.base_model} hold its weights quantized ({method}): "
            "there are none of 16 bits to merge into. Deploy the adapter with its base model, or "
            "train on a model that is not quantized.",
        )
    dtype: torch.dtype = getattr(torch, task.dtype)
    most, write, began = task.max_shard_bytes, program.space.insist, time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()

    def tick() -> None:
        program.stop.check()
        steps.next()

    with BaseFiles(base) as files:
        steps.total += len(files.names)
        steps.part(len(files.names), expected=None, after=after)
        if (why := unstreamable_reason(files, updates)) is None:
            write_merged(files, target, updates, quantized, dtype, most, write, tick)
        else:
            program.reporter.log(f"peft merges, with the whole model in memory: {why}.")
            spec = program.job.spec
            write_merged_by_peft(base, adapter, target, spec, quantized, dtype, most, write)
            steps.at(steps.done + len(files.names))
    write_companion_files(base, target, task.dtype, write)
    log.info("%d weights merged in %.1f s", len(updates), time.monotonic() - began)


def _scored_after(
    program: Program,
    task: MergeTask,
    directory: Path,
    rows: list[Row],
    steps: Steps,
    expected: float,
) -> RowScores:
    """The merged model's scores, opened as anybody would open it. `expected`: seconds for them.

    It may not fit a GPU that the run's own, in 4 bits, did fit: it is scored on the CPU then.
    """
    import torch

    from worker.merging.comparison import score_rows
    from worker.programs.load_model import load_merged

    done = steps.done

    def scored(on: torch.device | None, expected: float | None) -> RowScores:
        steps.done = done
        steps.part(len(rows), expected, after=0)
        merged, accelerator = load_merged(program, directory, on)
        return score_rows(
            program,
            task,
            rows,
            merged,
            merged.model,
            on or accelerator.device,
            lambda rows_done: steps.at(done + rows_done),
        )

    try:
        return scored(None, expected)
    except Exception as error:
        if not does_not_fit_gpu(error):
            raise
    # Not before the error is gone, whose frames hold the model.
    _release()
    program.reporter.warn(
        "compared_on_cpu",
        "The GPU's memory does not suffice for the merged model, which is not in 4 bits: it is "
        "compared with the adapter on the CPU, which takes longer.",
    )
    return scored(torch.device("cpu"), None)


def _announce(
    program: Program, job: Job, task: MergeTask, target: Path, found: MergeComparison, steps: Steps
) -> None:
    from worker.merging.model_card import merged_model_card

    card = merged_model_card(job, task, found)

    def written() -> None:
        (target / "README.md").write_text(card, "utf-8", newline="")

    program.space.insist("README.md", written)
    entries = []
    for path in sorted(target.iterdir()):
        steps.say()  # reading a large file for its digest takes a while
        entries.append(file_entry(path, target))
    program.reporter.emit(MergedEvent, path=MERGED, files=entries, comparison=found)


if __name__ == "__main__":
    launch(main, __doc__ or "")
