"""The rows of a measurement: the bundled sample's, or those of a file, in one order for all."""

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
    """Parquet of the training rows, and the answers of chats. `rows`: any file the API takes.

    Raises InvalidRequest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sample = resources.files("service.datasets.sample") / "train.jsonl"
        path = rows or Path(stack.enter_context(resources.as_file(sample)))
        built = build({"train": stack.enter_context(path.open("rb"))}, directory, on_invalid="drop")
    return built.path, built.completions


def template_of(work: "Work") -> Template:
    """The named template; of its system turn the first words only where the work says so."""
    template = builtin_templates()[work.template]
    if work.system_share < 1 and template.system is not None:
        words = template.system.split(" ")
        kept = " ".join(words[: max(1, round(len(words) * work.system_share))])
        template = template.model_copy(update={"system": kept})
    return template


def examples(work: "Work", tokenizer: Any) -> list["Example"]:
    """All training rows as token ids, in the file's order, whole batches only.

    A last batch with fewer samples than the others would be another measurement.
    """
    from worker.data.rows import read_rows
    from worker.data.tokenize import Prompts, Tokens

    rows = read_rows(Path(work.rows))
    labels = sorted({row.label for row in rows if row.label is not None})
    prompts = Prompts(Tokens(tokenizer, work.max_length), template_of(work), work.completions)
    made = [one for row in rows if (one := prompts.example(row, labels))]
    whole = len(made) // work.batch * work.batch
    if not whole:
        raise SystemExit(f"A step takes {work.batch} rows; {work.rows} has {len(made)}.")
    return made[:whole]


def in_order(rows: Sequence[T], work: "Work") -> list[T]:
    """The rows of all steps as Fairtune's loop draws them, steps one after another."""
    from worker.training.schedule import epoch_order

    drawn: list[T] = []
    epoch = 0
    while len(drawn) < work.steps * work.batch:
        drawn += [rows[place] for place in epoch_order(len(rows), work.seed, epoch)]
        epoch += 1
    return drawn[: work.steps * work.batch]
