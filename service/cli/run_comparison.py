"""`fairtune runs compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.cli.figures import number_text
from service.cli.output import AsJson, Output, print_json, write_text
from service.cli.references import LAST, run_of
from service.cli.tables import print_facts, print_table

if TYPE_CHECKING:
    from fairtune.models import Comparison, Estimate, RateEstimate

Format = Literal["text", "json", "html"]


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Two to twenty runs: an id, `last`, or RUN@STEP for a checkpoint.",
        ),
    ],
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Split to compare on; default: that of the first run's report."),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="Format; default: that of the file's name, else text."),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Compare runs and checkpoints on the same rows, with paired tests."""
    chosen = _format(format_, output, as_json=as_json)
    if chosen == "text" and output is not None:
        refuse("--output is for --format json and html", status=ExitStatus.USAGE)
    with connected(server, key) as client:
        entries = [run_of(client, run).id if run == LAST else run for run in runs]
        if chosen == "html":
            write_text(output, client.compare_as("html", *entries, split=split))
            return
        comparison = client.compare(*entries, split=split)
    if chosen == "text":
        _print(comparison)
    elif output is None:
        print_json(comparison.raw)
    else:
        text = json.dumps(comparison.raw, ensure_ascii=False, indent=2)
        write_text(output, f"{text}\n")


def _format(format_: Format | None, output: Path | None, *, as_json: bool) -> Format:
    if as_json and format_ not in (None, "json"):
        refuse(f"--json and --format {format_} exclude each other", status=ExitStatus.USAGE)
    if as_json:
        return "json"
    suffix = "" if output is None else output.suffix.lower()
    by_name: dict[str, Format] = {".json": "json", ".html": "html", ".htm": "html"}
    return format_ or by_name.get(suffix, "text")


def _print(comparison: "Comparison") -> None:
    data = comparison.data
    typer.echo(
        f"{data.split} split: {data.rows:,} rows, {data.positives:,} {comparison.positive_label}\n"
    )
    headers = ("MODEL", "CAPS", "F1", "ACCURACY", "FPR", "FNR", "FRONT", "NAME", "BASE MODEL")
    rows = [
        (
            entry.entry,
            entry.caps_verdict.replace("_", " "),
            _figure(entry.f1),
            _figure(entry.accuracy),
            _figure(entry.fpr),
            _figure(entry.fnr),
            "yes" if entry.pareto else "",
            entry.name,
            entry.base_model,
        )
        for entry in comparison.entries
    ]
    print_table(headers, rows, elastic={"NAME", "BASE MODEL"})
    typer.echo()
    print_table(
        ("FIRST", "SECOND", "ONLY FIRST RIGHT", "ONLY SECOND RIGHT", "P"),
        [
            (
                pair.first,
                pair.second,
                str(pair.paired.only_first),
                str(pair.paired.only_second),
                number_text(pair.paired.p_holm or pair.paired.p_value),
            )
            for pair in comparison.pairs
        ],
    )
    if comparison.warnings:
        typer.echo("\nWarnings")
        print_facts([("-", warning.detail) for warning in comparison.warnings], indent=0)


def _figure(estimate: "Estimate | RateEstimate") -> str:
    return "-" if estimate.value is None else f"{estimate.value:.3f}"
