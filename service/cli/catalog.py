"""`fairtune presets`, `templates` and `models`."""

from typing import Annotated

import typer

from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.cli.output import AsJson, print_json
from service.cli.plan_text import print_spec
from service.cli.tables import print_facts, print_table


def presets(
    name: Annotated[
        str | None, typer.Argument(help="Preset whose values to print; default: list all.")
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """List the presets of runs, or print the values of one."""
    with connected(server, key) as client:
        listed = {preset.name: preset for preset in client.presets()}
    if name is None:
        if as_json:
            print_json([preset.raw for preset in listed.values()])
        else:
            rows = [(preset.name, preset.description) for preset in listed.values()]
            print_table(("PRESET", "DESCRIPTION"), rows, elastic={"DESCRIPTION"})
        return
    if name not in listed:
        _refuse_unknown("preset", name, list(listed))
    preset = listed[name]
    if as_json:
        print_json(preset.raw)
    else:
        typer.echo(f"{preset.description}\n")
        print_spec(preset.spec)


def templates(
    name: Annotated[
        str | None, typer.Argument(help="Template whose text to print; default: list all.")
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """List the prompt templates, or print the text of one."""
    with connected(server, key) as client:
        listed = {template.name: template for template in client.templates()}
    if name is None:
        if as_json:
            print_json([template.raw for template in listed.values()])
        else:
            rows = [(template.name, template.description) for template in listed.values()]
            print_table(("TEMPLATE", "DESCRIPTION"), rows, elastic={"DESCRIPTION"})
        return
    if name not in listed:
        _refuse_unknown("template", name, list(listed))
    template = listed[name]
    if as_json:
        print_json(template.raw)
        return
    typer.echo(template.description)
    turns = {"system": template.system, "user": template.user, "completion": template.completion}
    for role, text in turns.items():
        if text is not None:
            typer.echo(f"\n{role}:\n{text}")
    if template.labels:
        typer.echo("\nlabels:")
        print_facts(template.labels.items())


def _refuse_unknown(kind: str, name: str, names: list[str]) -> None:
    refuse(
        f"there is no {kind} {name!r}; there are {', '.join(names)}", status=ExitStatus.NOT_FOUND
    )


def models(as_json: AsJson = False, server: Server = None, key: Key = None) -> None:
    """List the base models that the server has without a model hub."""
    with connected(server, key) as client:
        listed = client.models()
    if as_json:
        print_json([model.raw for model in listed])
    elif not listed:
        typer.echo("The server has no models of its own: base models come from the hub.", err=True)
    else:
        print_table(("MODEL", "SOURCE"), [(model.name, model.source) for model in listed])
