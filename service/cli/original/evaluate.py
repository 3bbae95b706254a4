"""`fairtune evaluate`: the evaluation script's call, with a report as its result."""

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from service.cli.connection import Key, Server
from service.cli.errors import ExitStatus, refuse
from service.cli.original.spellings import NO_EFFECT, spellings
from service.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from fairtune import Client, Evaluation, Report, Run

_RUN = re.compile(r"(run_[0-9a-z]+)(?:@(\d+))?")
_UNIFIED = "unified"
_UNIFIED_FILE = Path("data/processed/unified/unified_test.json")
"""The test rows in the directory layout of the scripts."""


class _Subject(NamedTuple):
    """The model to evaluate: a run, or an adapter's directory, or a base model."""

    run_id: str | None = None
    step: int | None = None
    adapter: Path | None = None
    base_model: str | None = None
    """Name for the server; None: the adapter's own."""
    directory: Path | None = None
    """Local directory of the base model."""


def evaluate(
    model: Annotated[
        str,
        typer.Option(
            *spellings("model", "model_name"),
            help="Run (run_…, run_…@STEP), adapter directory, or base model.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            *spellings("data", "data_file"),
            help=f"File with labelled rows; unified: {_UNIFIED_FILE}.",
        ),
    ],
    template: Annotated[
        str | None,
        typer.Option(
            *spellings("template", "prompt_template"),
            help="Prompt template, as listed by `fairtune templates`; default: the run's.",
        ),
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option(
            *spellings("max_samples"), min=1, help="Maximum number of rows; default: all."
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            *spellings("output_dir"),
            help="Directory that receives run_…/performance_metrics_….csv and others.",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            *spellings("base_model"),
            help="Base model of an adapter directory; default: the one that it names.",
        ),
    ] = None,
    load_in_4bit: Annotated[
        bool | None,
        typer.Option(
            "--load_in_4bit/--no_load_in_4bit",
            help="Score a directory's model with 4-bit weights; default: as trained, else yes.",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            *spellings("max_length", "max_seq_length"),
            help="Maximum tokens of prompt and answer, for a directory's model.",
        ),
    ] = None,
    strategy: Annotated[str | None, typer.Option(hidden=True, help=NO_EFFECT)] = None,
    max_new_tokens: Annotated[
        str | None, typer.Option(*spellings("max_new_tokens"), hidden=True, help=NO_EFFECT)
    ] = None,
    temperature: Annotated[str | None, typer.Option(hidden=True, help=NO_EFFECT)] = None,
    cache_dir: Annotated[
        str | None, typer.Option(*spellings("cache_dir"), hidden=True, help=NO_EFFECT)
    ] = None,
    use_accelerate: Annotated[
        bool, typer.Option(*spellings("use_accelerate"), hidden=True, help=NO_EFFECT)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", hidden=True, help=NO_EFFECT)] = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Evaluate a model on a file, as the runner did; prints the report.

    Uses the running server, or starts one for the evaluation. The runner's --strategy,
    --max_new_tokens, --temperature, --cache_dir, --use_accelerate and --debug are accepted and have
    no effect: labels get probabilities, so that no answer is generated.
    """
    from service.cli.original.imported import server_with

    ignored = {
        "strategy": strategy,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "cache_dir": cache_dir,
        "use_accelerate": use_accelerate,
        "debug": debug,
    }
    if names := [name for name, value in ignored.items() if value]:
        typer.echo(f"Without effect here: {', '.join(names)}.", err=True)
    file = _data_file(data)
    subject = _subject(model, base_model)
    options: dict[str, Any] = {} if template is None else {"template": template}
    if load_in_4bit is not None:
        options["quantization"] = {"load_in_4bit": load_in_4bit}
    if max_length is not None:
        options["training"] = {"max_seq_length": max_length}
    option = "model" if subject.adapter is None else "base_model"
    with server_with(
        server, key, purpose="evaluate", model=subject.directory, option=option
    ) as client:
        _check_template(client, template)
        evaluation = _evaluate(client, subject, file, template, options, max_samples)
        report = evaluation.report() if evaluation.metrics else None
        if output_dir is not None:
            typer.echo(f"Results: {_write(evaluation, report, output_dir)}", err=True)
    _show(evaluation, report, as_json=as_json)


def _data_file(name: str) -> Path:
    file = _UNIFIED_FILE if name == _UNIFIED and not Path(name).is_file() else Path(name)
    if not file.is_file():
        remedy = "; name the file with the test rows" if name == _UNIFIED else ""
        refuse(f"data: {file} is no file{remedy}", status=ExitStatus.USAGE)
    return file


def _subject(model: str, base_model: str | None) -> _Subject:
    from service.cli.original.base_model import model_directory
    from service.cli.original.imported import adapter_directory, base_model_of

    if match := _RUN.fullmatch(model):
        run_id, step = match.groups()
        return _Subject(run_id=run_id, step=None if step is None else int(step))
    adapter = adapter_directory(model, "model")
    if adapter is not None:
        base = base_model_of(adapter, base_model)
        return _Subject(adapter=adapter, base_model=base.name, directory=base.directory)
    directory = model_directory(model, "model")
    name = model if directory is None else directory.name
    return _Subject(base_model=name, directory=directory)


def _check_template(client: "Client", template: str | None) -> None:
    names = [entry.name for entry in client.templates()] if template is not None else []
    if template is not None and template not in names:
        what = "files are not read" if Path(template).suffix or "/" in template else "no such one"
        refuse(f"template: {template}: {what}; the server has {', '.join(names)}")


def _evaluate(
    client: "Client",
    subject: _Subject,
    file: Path,
    template: str | None,
    options: dict[str, Any],
    max_samples: int | None,
) -> "Evaluation":
    from service.cli.original.imported import import_adapter, import_base_model, wait_or_cancel

    run, target = _run(client, subject, options, import_adapter, import_base_model)
    dataset = client.datasets.create(file.stem, test=file)
    for warning in dataset.warnings:
        typer.echo(f"{warning.code}: {warning.detail}", err=True)
    evaluation = run.evaluate(
        target=target,  # type: ignore[arg-type]
        step=subject.step,
        dataset=dataset,
        split="test",
        template=template,
        max_samples=max_samples,
    )
    typer.echo(f"{evaluation.id}: {target} of {run.id} on {dataset.id}", err=True)
    wait_or_cancel(evaluation)
    return evaluation


def _run(
    client: "Client",
    subject: _Subject,
    options: dict[str, Any],
    import_adapter: Any,
    import_base_model: Any,
) -> tuple["Run", str]:
    """Return the run of the model, and which of its weights are evaluated."""
    if subject.run_id is not None:
        run = client.runs.get(subject.run_id)
        return run, "adapter" if subject.step is None else "checkpoint"
    named = {} if subject.base_model is None else {"base_model": subject.base_model}
    if subject.adapter is not None:
        return import_adapter(client, subject.adapter, named | options), "adapter"
    return import_base_model(client, subject.base_model, options), "base"


def _write(evaluation: "Evaluation", report: "Report | None", directory: Path) -> Path:
    """Write the result files into a new directory run_… and return it."""
    stamp = time.strftime("%Y%m%d_%H%M%S")
    folder, number = directory / f"run_{stamp}", 1
    while folder.exists():
        number += 1
        folder = directory / f"run_{stamp}_{number}"
    folder.mkdir(parents=True)
    evaluation.download_predictions(folder / f"predictions_{stamp}.parquet")
    if report is not None:
        for table in ("performance", "bias"):
            text = evaluation.report_as("csv", table)
            (folder / f"{table}_metrics_{stamp}.csv").write_text(text, "utf-8", newline="")
        (folder / "report.json").write_text(json.dumps(report.raw, indent=2) + "\n", "utf-8")
        (folder / "report.html").write_text(evaluation.report_as("html"), "utf-8")
    return folder


def _show(evaluation: "Evaluation", report: "Report | None", *, as_json: bool) -> None:
    if as_json:
        print_json(evaluation.raw if report is None else report.raw)
    elif report is None:
        typer.echo("There is no report: the rows have no labels.", err=True)
    else:
        from service.fairness.schema import BiasReport
        from service.fairness.text import print_report

        print_report(BiasReport.model_validate(report.raw))
