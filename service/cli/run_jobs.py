"""`fairtune runs evaluate` and `merge`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.connection import Key, Server, connected
from service.cli.figures import number_text, size_text
from service.cli.output import AsJson, print_json
from service.cli.references import LAST, RunRef, dataset_of, run_of
from service.cli.tables import print_facts
from service.cli.waiting import Timeout, Wait, check_succeeded, wait_for

if TYPE_CHECKING:
    from fairtune import Evaluation, Merge


def evaluate(
    run: RunRef,
    target: Annotated[
        Literal["base", "adapter", "checkpoint", "merged"] | None,
        typer.Option(help="Weights to score; default: adapter."),
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Step of the checkpoint, with --target checkpoint.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Dataset; default: the run's.")
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Split to score; default: test."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt template; default: the run's.")
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of rows; default: all.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Score a run's model on a dataset; prints the evaluation's id, with --wait the figures."""
    with connected(server, key) as client:
        evaluation = run_of(client, run).evaluate(
            target=target,
            step=step,
            dataset=dataset_of(client, LAST).id if dataset == LAST else dataset,
            split=split,
            template=template,
            max_samples=max_samples,
        )
        _follow(evaluation, wait=wait, timeout=timeout, as_json=as_json)
    if wait and not as_json:
        rows = [(name, number_text(value)) for name, value in evaluation.metrics.items()]
        print_facts(rows or [("metrics", "none: no row has a label")])


def merge(
    run: RunRef,
    checkpoint: Annotated[
        int | None, typer.Option(help="Step of the checkpoint to merge; default: the adapter.")
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option(help="Data type of the merged weights; default: bfloat16."),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(help="Maximum size of a weight file: 500MB; default: 5GB.")
    ] = None,
    base_weights: Annotated[
        Literal["original", "dequantized"] | None,
        typer.Option(
            help="Merge into the base model's own weights (default), or into those quantized to 4 "
            "bits and back."
        ),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Merge a run's adapter into its base model; prints the merge's id."""
    with connected(server, key) as client:
        merged = run_of(client, run).merge(
            checkpoint=checkpoint,
            dtype=dtype,
            max_shard_size=max_shard_size,
            base_weights=base_weights,
        )
        _follow(merged, wait=wait, timeout=timeout, as_json=as_json)
    if wait and not as_json:
        print_facts(_facts_of_merge(merged))


def _facts_of_merge(merge: "Merge") -> list[tuple[str, str]]:
    facts = [("files", f"{len(merge.files)}, {size_text(merge.size or 0)} of {merge.dtype}")]
    comparison = merge.comparison
    if comparison is not None:
        changed = comparison.labels_changed
        facts += [
            ("compared", f"{comparison.rows} rows of the {comparison.split} split"),
            ("changed labels", "-" if changed is None else str(changed)),
            ("maximum difference", number_text(comparison.max_difference)),
        ]
    return facts


def _follow(job: "Evaluation | Merge", *, wait: bool, timeout: float | None, as_json: bool) -> None:
    if not as_json:
        typer.echo(job.id)
    if wait:
        wait_for(job, timeout)
    if as_json:
        print_json(job.raw)
    if wait:
        check_succeeded(job)
