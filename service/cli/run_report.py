"""`fairtune runs report`: the bias report on the terminal or in a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.cli.output import AsJson, Output, print_json, write_text
from service.cli.references import RunRef, run_of

if TYPE_CHECKING:
    from fairtune import Evaluation, Report, Run
    from service.fairness.schema import BiasReport

Format = Literal["text", "json", "html", "csv", "pdf"]
Table = Literal["bias", "performance"]


def report(
    run: RunRef,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format; default: that of the file's name, else text. pdf needs a Chromium.",
        ),
    ] = None,
    output: Output = None,
    table: Annotated[
        Table | None,
        typer.Option(
            help="Table of csv: bias (default), error rates by group; performance, all rows."
        ),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            metavar="EVALUATION",
            help="Id of an evaluation to report on instead of the certifying one.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Exit with 8 unless every cap that applies passes and min_f1, if set, is met.",
        ),
    ] = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Print a run's bias report: error rates by group, intervals, verdicts on the caps."""
    chosen = _format(format_, output, table, as_json=as_json)
    with connected(server, key) as client:
        subject: Run | Evaluation = run_of(client, run)
        if evaluation is not None:
            subject = subject.evaluation(evaluation)  # type: ignore[union-attr]
        content = subject.report()
        match chosen:
            case "text":
                _print_text(content, output)
            case "json":
                print_json(content.raw) if output is None else write_text(output, _dump(content))
            case "pdf":
                from service.cli.pdf import write_pdf

                assert output is not None
                write_pdf(subject.report_as("html"), output)
            case _:
                write_text(output, subject.report_as(chosen, table))
    if check:
        _check(content)


def _format(
    format_: Format | None, output: Path | None, table: Table | None, *, as_json: bool
) -> str:
    if as_json and format_ not in (None, "json"):
        refuse(f"--json and --format {format_} exclude each other", status=ExitStatus.USAGE)
    suffix = "" if output is None else output.suffix.lower().lstrip(".")
    by_name = {"json": "json", "html": "html", "htm": "html", "csv": "csv", "pdf": "pdf"}
    chosen: str = "json" if as_json else format_ or by_name.get(suffix, "text")
    if table is not None and chosen != "csv":
        refuse("--table is for --format csv", status=ExitStatus.USAGE)
    if chosen == "pdf" and output is None:
        refuse("--format pdf needs a file: -o report.pdf", status=ExitStatus.USAGE)
    return chosen


def _dump(content: "Report") -> str:
    import json

    return json.dumps(content.raw, ensure_ascii=False, indent=2) + "\n"


def _print_text(content: "Report", output: Path | None) -> None:
    from service.fairness.text import print_report, render_text

    report = _parsed(content.raw)
    if output is None:
        print_report(report)
    else:
        write_text(output, render_text(report))


def _parsed(raw: dict[str, Any]) -> "BiasReport":
    from pydantic import ValidationError

    from service.fairness.schema import BiasReport

    try:
        return BiasReport.model_validate(raw)
    except ValidationError:
        version = raw.get("schema_version")
        refuse(
            f"the report has schema version {version}, which this version of fairtune cannot print "
            "as text; use --format html or json"
        )


def _check(content: "Report") -> None:
    """Exit with NOT_PASSED unless the criteria of a release are met. Raises Exit."""
    reasons = [f"caps: {content.caps_verdict}"] if content.caps_verdict != "pass" else []
    if content.min_f1 is not None and content.min_f1.verdict != "met":
        reasons.append(f"min_f1 {content.min_f1.min_f1:g}: {content.min_f1.verdict or 'unknown'}")
    unseen = content.unseen
    if unseen is not None and unseen.caps_verdict not in ("pass", "not_applicable"):
        reasons.append(f"caps without rows that the model has seen: {unseen.caps_verdict}")
    if unseen is not None and unseen.min_f1 is not None and unseen.min_f1.verdict != "met":
        reasons.append("min_f1 without rows that the model has seen: not met")
    if reasons:
        refuse(f"not passed: {'; '.join(reasons)}", status=ExitStatus.NOT_PASSED)
