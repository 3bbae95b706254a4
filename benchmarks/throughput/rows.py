"""Rows of a measurement, from the bundled sample or a file, in the same order for all systems."""

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from service.datasets.build import build
from service.datasets.templates import builtin_templates
from service.domain.template import Template

if TYPE_CHECKING:
    from benchmarks.throughput.work import Work
    from worker.data.tokenize import Example

T = TypeVar("T")


def prepare(rows: Path | None, directory: Path) -> tuple[Path, dict[str, str] | None]:
    """Return the Parquet file of the training rows, and the answers of chats.

    `rows` is any dataset file that the API accepts. Raises InvalidRequest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sample = resources.files("service.datasets.sample") / "train.jsonl"
        path = rows or Path(stack.enter_context(resources.as_file(sample)))
        dataset = build(
            {"train": stack.enter_context(path.open("rb"))}, directory, on_invalid="drop"
        )
    return dataset.path, dataset.completions


def template_of(work: "Work") -> Template:
    """Return the work's template, with its system turn shortened to `system_share` of its words."""
    template = builtin_templates()[work.template]
    if work.system_share < 1 and template.system is not None:
        words = template.system.split(" ")
        shortened = " ".join(words[: max(1, round(len(words) * work.system_share))])
        template = template.model_copy(update={"system": shortened})
    return template


def examples(work: "Work", tokenizer: Any) -> list["Example"]:
    """Return all training samples in the file's order, without an incomplete last batch.

    A smaller batch would not be comparable.
    """
    from worker.data.rows import read_rows
    from worker.data.tokenize import Prompts, Tokens

    rows = read_rows(Path(work.rows))
    labels = sorted({row.label for row in rows if row.label is not None})
    prompts = Prompts(Tokens(tokenizer, work.max_length), template_of(work), work.completions)
    samples = [sample for row in rows if (sample := prompts.example(row, labels))]
    count = len(samples) // work.batch * work.batch
    if not count:
        raise SystemExit(f"A step takes {work.batch} rows; {work.rows} has {len(samples)}.")
    return samples[:count]


def in_order(rows: Sequence[T], work: "Work") -> list[T]:
    """Return the rows of all steps in the order of Fairtune's training loop."""
    from worker.training.schedule import epoch_order

    ordered: list[T] = []
    epoch = 0
    while len(ordered) < work.steps * work.batch:
        ordered += [rows[index] for index in epoch_order(len(rows), work.seed, epoch)]
        epoch += 1
    return ordered[: work.steps * work.batch]
