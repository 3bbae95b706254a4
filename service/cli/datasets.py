"""`fairtune datasets`: add, list, show, preview, delete."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.cli.figures import counts_text, time_text
from service.cli.output import AsJson, print_json
from service.cli.paging import All, Limit, maximum_of, mention_more
from service.cli.questions import Yes, confirm
from service.cli.references import DatasetRef, dataset_of
from service.cli.spec_file import parse_object, read_object
from service.cli.tables import print_facts, print_table

if TYPE_CHECKING:
    from fairtune import Dataset
    from fairtune.models import RowView

app = typer.Typer(no_args_is_help=True, help="Upload, inspect and delete datasets.")
SplitFile = Annotated[Path | None, typer.Option(metavar="FILE", help="File of this split.")]
Split = Literal["train", "validation", "test"]


@app.command()
def add(
    file: Annotated[
        Path | None,
        typer.Argument(help="File whose rows name their split; or use --train and the others."),
    ] = None,
    train: SplitFile = None,
    validation: SplitFile = None,
    test: SplitFile = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset; default: the file's name.")
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|FILE",
            help="Columns, label words and splits of your file: a JSON object, or a file in JSON, "
            "YAML or TOML.",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Format of the files; default: recognised by the content."),
    ] = None,
    on_invalid: Annotated[
        Literal["refuse", "drop"] | None,
        typer.Option(help="Refuse a file with invalid rows (default), or drop these rows."),
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Upload a dataset: one file, or a file for each split; prints its id."""
    sources = {"file": file, "train": train, "validation": validation, "test": test}
    files = {field: path for field, path in sources.items() if path is not None}
    if not files:
        refuse("add a file, or --train, --validation and --test", status=ExitStatus.USAGE)
    for field, path in files.items():
        if not path.is_file():
            subject = str(path) if field == "file" else f"--{field} {path}"
            reason = "is a directory" if path.is_dir() else "there is no such file"
            refuse(f"{subject}: {reason}", status=ExitStatus.USAGE)
    columns = None if mapping is None else _mapping(mapping)
    with connected(server, key) as client:
        dataset = client.datasets.create(
            name or next(iter(files.values())).stem,
            file=file,
            train=train,
            validation=validation,
            test=test,
            format=format_,
            mapping=columns,
            on_invalid=on_invalid,
        )
    if as_json:
        print_json(dataset.raw)
        return
    typer.echo(dataset.id)
    rows = ", ".join(f"{split} {stats.rows:,}" for split, stats in dataset.stats.splits.items())
    typer.echo(f"{dataset.stats.rows:,} rows: {rows}", err=True)
    if dataset.dropped.total:
        typer.echo(f"{dataset.dropped.total:,} invalid rows are left out", err=True)
    for warning in dataset.warnings:
        typer.echo(f"warning: {warning.detail}", err=True)


def _mapping(option: str) -> dict[str, Any]:
    if option.lstrip().startswith("{"):
        return parse_object("--mapping", option, "JSON")
    return read_object("--mapping", Path(option))


@app.command(name="list")
def list_(
    limit: Limit = 20,
    everything: All = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """List datasets, newest first."""
    maximum = maximum_of(limit, everything)
    with connected(server, key) as client:
        datasets = list(client.datasets.list(maximum))
    if as_json:
        print_json([dataset.raw for dataset in datasets])
        return
    if not datasets:
        typer.echo("There is no dataset.", err=True)
        return
    print_table(
        ("ID", "ROWS", "CREATED", "NAME", "SPLITS", "LABELS"),
        [
            (
                dataset.id,
                f"{dataset.stats.rows:,}",
                time_text(dataset.created_at),
                dataset.name,
                counts_text({split: s.rows for split, s in dataset.stats.splits.items()}),
                counts_text(dataset.stats.labels),
            )
            for dataset in datasets
        ],
        elastic={"NAME", "SPLITS", "LABELS"},
    )
    mention_more(len(datasets), maximum)


@app.command()
def show(
    dataset: DatasetRef, as_json: AsJson = False, server: Server = None, key: Key = None
) -> None:
    """Show a dataset's splits, labels, groups and warnings."""
    with connected(server, key) as client:
        shown = dataset_of(client, dataset)
    if as_json:
        print_json(shown.raw)
        return
    typer.echo(f"Dataset {shown.id}")
    print_facts(_facts(shown))
    typer.echo()
    print_table(
        ("SPLIT", "ROWS", "LABELS", "GROUPS"),
        [
            (split, f"{stats.rows:,}", counts_text(stats.labels), counts_text(stats.groups))
            for split, stats in shown.stats.splits.items()
        ],
        elastic={"LABELS", "GROUPS"},
    )
    if shown.warnings:
        typer.echo("\nWarnings")
        print_facts([("-", warning.detail) for warning in shown.warnings], indent=0)
    if shown.dropped.rows:
        typer.echo(f"\nLeft out: {counts_text(shown.dropped.by_kind)}")
        print_facts([(row.pointer, row.detail) for row in shown.dropped.rows], indent=0)


def _facts(dataset: "Dataset") -> list[tuple[str, str]]:
    stats = dataset.stats
    length = stats.text_length
    shared = counts_text(stats.shared_rows) if any(stats.shared_rows.values()) else ""
    facts = [
        ("name", dataset.name),
        ("kind", stats.kind),
        ("rows", f"{stats.rows:,}"),
        ("characters", f"median {length.median:,}, 90 % {length.p90:,}, maximum {length.max:,}"),
        ("repeated rows", f"{stats.repeated_rows:,}" if stats.repeated_rows else ""),
        ("shared rows", shared),
        ("created", time_text(dataset.created_at)),
        ("sha256", dataset.content_hash),
    ]
    return [fact for fact in facts if fact[1]]


@app.command()
def preview(
    dataset: DatasetRef,
    split: Annotated[Split | None, typer.Option(help="Split; default: the first one.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Number of rows; default: 20.")
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Print the first rows of a dataset."""
    with connected(server, key) as client:
        rows = dataset_of(client, dataset).preview(split, limit)
    if as_json:
        print_json([row.raw for row in rows])
        return
    print_table(
        ("SPLIT", "LABEL", "GROUP", "TEXT"),
        [(row.split, row.label or "-", row.group or "-", _text(row)) for row in rows],
        elastic={"LABEL", "GROUP", "TEXT"},
    )


def _text(row: "RowView") -> str:
    if row.text is not None:
        return row.text
    return "  ".join(f"{turn.role}: {turn.content}" for turn in row.messages or ())


@app.command()
def delete(
    dataset: DatasetRef,
    yes: Yes = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Delete a dataset permanently; refused while runs need it."""
    with connected(server, key) as client:
        deleted = dataset_of(client, dataset)
        confirm(f"Delete the dataset {deleted.name!r} ({deleted.id})?", yes=yes)
        deleted.delete()
    if as_json:
        print_json({"id": deleted.id, "deleted": True})
    else:
        typer.echo(f"{deleted.id} is deleted")
