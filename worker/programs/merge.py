"""A merge job: merge an adapter into its base model's weights, and compare the result with it.

python -m worker.programs.merge JOB_DIR

The order keeps at most one model in memory, and none while weights are written:

1. the base model as it was trained, with the adapter, scores a sample of the run's rows;
2. the merged weights are written, one file at a time (worker.merging);
3. the merged model is loaded as any user would load it, and scores the same sample;
4. if the scores agree, the files are announced, all at once.
"""

from __future__ import annotations

import gc
import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from service.domain.errors import ProgramFailure
from service.domain.events import MergedEvent
from service.domain.job import CARD_FILE, MERGED_DIR
from service.domain.merge import MergeComparison, MergeTask
from service.domain.states import FailureReason, Phase
from worker.runtime import imports
from worker.runtime.events import file_entry
from worker.runtime.launch import Program, launch
from worker.runtime.out_of_memory import exceeds_gpu_memory
from worker.runtime.progress import ProgressTracker

if TYPE_CHECKING:  # importing torch takes seconds; `starting` is reported before
    import torch

    from worker.data.rows import Row
    from worker.merging.comparison import RowScores
    from worker.merging.streamed import QuantizedWeights, Updates

log = logging.getLogger("fairtune")


def main(program: Program) -> None:
    """Run the job."""
    job, spec, reporter = program.job, program.job.spec, program.reporter
    task, adapter = job.task, job.adapter
    if not isinstance(task, MergeTask) or adapter is None:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC, "job.json does not say what to merge: `task`, `adapter`."
        )
    reporter.phase(Phase.LOADING)
    from worker.data.rows import read_rows
    from worker.programs.locate_model import locate_model

    base = locate_model(job, program.directory)
    imports.load(base, in_4bit=spec.quantization.load_in_4bit)
    from worker.merging import comparison

    rows = comparison.comparison_rows(read_rows(program.directory / job.dataset), task)
    progress = ProgressTracker(reporter, 2 * len(rows))
    merge = Merge(program, task, base, program.directory / adapter, rows, progress)
    merge.check_base()
    before, updates, quantized = merge.score_adapter()
    scoring_seconds = progress.elapsed  # the merged model takes about as long
    _release_memory()
    reporter.phase(Phase.MERGING)
    merge.write(updates, quantized, scoring_seconds)
    reporter.phase(Phase.EVALUATING)
    after = merge.score_merged(scoring_seconds)
    result = comparison.compare_scores(task, before, after)
    comparison.check_comparison(
        task, result, in_4bit=spec.quantization.load_in_4bit, reporter=reporter
    )
    reporter.phase(Phase.SAVING)
    merge.announce(result)
    reporter.phase(Phase.DONE)


@dataclass(frozen=True, slots=True)
class Merge:
    """The steps of one merge job."""

    program: Program
    task: MergeTask
    base: Path
    adapter: Path
    rows: list[Row]
    """Rows of the comparison."""
    progress: ProgressTracker
    prompt_notes: list[str] = field(default_factory=list)
    """Sentences for the model card on how to send the trained prompt."""

    @property
    def target(self) -> Path:
        """Directory of the merged model."""
        return self.program.directory / MERGED_DIR

    def check_base(self) -> None:
        """Raise ProgramFailure(invalid_spec) for a base model whose weights are quantized."""
        from worker.merging.base_files import quantization_of

        if (method := quantization_of(self.base)) not in (None, "mxfp4"):
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"The files of {self.program.job.spec.base_model} contain quantized weights "
                f"({method}), but merging needs 16-bit weights. Deploy the adapter with its base "
                "model, or train on a model that is not quantized.",
            )

    def score_adapter(self) -> tuple[RowScores, Updates, QuantizedWeights | None]:
        """Score the rows with the adapter; return its values, and its updates to the weights."""
        from worker.merging.comparison import served_prompt_notes
        from worker.merging.streamed import QuantizedWeights
        from worker.merging.updates import names_in_4bit, transposed_names, updates_of
        from worker.programs.load_model import add_job_adapter, load_base

        job, reporter = self.program.job, self.program.reporter
        base = load_base(self.base, job.spec, Path(job.models_dir), reporter)
        model = add_job_adapter(base.model, job, self.adapter)
        reporter.phase(Phase.EVALUATING)
        self.progress.begin(len(self.rows), expected_seconds=None, seconds_after=None)
        values = self._values(model, base.tokenizer)
        self.prompt_notes[:] = served_prompt_notes(job, self.rows, base.tokenizer)
        quantized = None
        if self.task.base_weights == "dequantized":
            quantized = QuantizedWeights(
                names=frozenset(names_in_4bit(model)),
                section=job.spec.quantization,
                dtype=base.model.dtype,
                device=base.model.device,
                transposed=frozenset(transposed_names(model)),
            )
        return values, updates_of(model), quantized

    def write(
        self, updates: Updates, quantized: QuantizedWeights | None, seconds_after: float
    ) -> None:
        """Write all files of the merged model except its card.

        `seconds_after` is the estimate for the steps that follow. Raises ProgramFailure.
        """
        import torch

        from worker.merging.base_files import BaseFiles
        from worker.merging.by_peft import write_merged_by_peft
        from worker.merging.companion_files import write_companion_files
        from worker.merging.streamed import unstreamable_reason, write_merged

        program, task, target, progress = self.program, self.task, self.target, self.progress
        dtype: torch.dtype = getattr(torch, task.dtype)
        write, started = program.space.write_with_retry, time.monotonic()
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

        def tick() -> None:
            program.stop.check()
            progress.advance()

        with BaseFiles(self.base) as files:
            progress.total += len(files.names)
            progress.begin(len(files.names), expected_seconds=None, seconds_after=seconds_after)
            if (reason := unstreamable_reason(files, updates)) is None:
                write_merged(
                    files, target, updates, quantized, dtype, task.max_shard_bytes, write, tick
                )
            else:
                program.reporter.log(f"peft merges, with the whole model in memory: {reason}.")
                write_merged_by_peft(
                    self.base,
                    self.adapter,
                    target,
                    program.job,
                    quantized,
                    dtype,
                    task.max_shard_bytes,
                    write,
                )
                progress.advance(len(files.names))
        write_companion_files(self.base, target, task.dtype, write)
        log.info("%d weights merged in %.1f s", len(updates), time.monotonic() - started)

    def score_merged(self, expected_seconds: float) -> RowScores:
        """Score the rows with the merged model, loaded as any user would load it.

        If the merged model does not fit the GPU, which the run's own, in 4 bits, did, it is scored
        on the CPU.
        """
        import torch

        done_before = self.progress.done
        try:
            return self._score_merged(None, expected_seconds)
        except Exception as error:
            if not exceeds_gpu_memory(error):
                raise
        # Only once the exception is gone, whose frames hold the model.
        _release_memory()
        self.program.reporter.warn(
            "compared_on_cpu",
            "The GPU's memory does not suffice for the merged model, which is not in 4 bits: it is "
            "compared with the adapter on the CPU, which takes longer.",
        )
        self.progress.count(done_before)
        return self._score_merged(torch.device("cpu"), None)

    def _score_merged(
        self, device: torch.device | None, expected_seconds: float | None
    ) -> RowScores:
        from worker.programs import load_model

        self.progress.begin(len(self.rows), expected_seconds, seconds_after=0)
        merged = load_model.load_merged(
            self.target, self.program.job.spec, self.program.reporter, device
        )
        return self._values(merged.model, merged.tokenizer)

    def _values(self, model: object, tokenizer: object) -> RowScores:
        from worker.merging.comparison import score_rows

        done_before = self.progress.done
        return score_rows(
            self.program.job,
            self.task,
            self.rows,
            model,
            tokenizer,
            tick=lambda rows_done: self.progress.update(done_before + rows_done),
            log=self.program.reporter.log,
        )

    def announce(self, comparison: MergeComparison) -> None:
        """Write the model card and emit the event that names all files."""
        from worker.merging.model_card import merged_model_card

        reporter, target = self.program.reporter, self.target
        card = merged_model_card(self.program.job, self.task, comparison, self.prompt_notes)
        self.program.space.write_with_retry(
            CARD_FILE, lambda: (target / CARD_FILE).write_text(card, "utf-8", newline="")
        )
        entries = []
        for path in sorted(target.iterdir()):
            self.progress.emit()  # hashing a large file takes a while
            entries.append(file_entry(path, target))
        reporter.emit(MergedEvent, path=MERGED_DIR, files=entries, comparison=comparison)


def _release_memory() -> None:
    """Free memory that no model uses any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    launch(main, __doc__ or "")
