"""Plans of runs and specifications as text."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from service.cli.tables import print_facts, print_table

if TYPE_CHECKING:
    from fairtune.models import PlanView


def print_plan(plan: "PlanView") -> None:
    """Print the resolved values, the steps and the warnings of a plan."""
    print_spec(plan.raw["spec"])
    typer.echo()
    print_facts(
        [
            ("effective batch size", f"{plan.effective_batch_size:,}"),
            ("steps per epoch", f"{plan.steps_per_epoch:,}"),
            ("total steps", f"{plan.total_steps:,}"),
        ],
        indent=0,
    )
    if plan.warnings:
        typer.echo("\nWarnings")
        print_facts([("-", warning) for warning in plan.warnings], indent=0)


def print_spec(spec: Mapping[str, Any]) -> None:
    """Print a specification, a field per line, as `--set` writes it."""
    print_table(("FIELD", "VALUE"), list(_fields(spec)), elastic={"VALUE"})


def _fields(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in spec.items():
        if isinstance(value, dict) and value:
            yield from _fields(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", text
