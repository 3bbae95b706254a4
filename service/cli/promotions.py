"""`fairtune promotions`: list, show and withdraw; `fairtune runs promote` promotes."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connection import Key, Server, connected
from service.cli.figures import time_text
from service.cli.output import AsJson, print_json
from service.cli.paging import All, Limit, maximum_of, mention_more
from service.cli.questions import Yes, confirm
from service.cli.tables import print_facts, print_table

if TYPE_CHECKING:
    from fairtune.models import PromotionView

app = typer.Typer(no_args_is_help=True, help="Show and withdraw release names of runs.")
DEFAULT_STAGE = "production"
Release = Annotated[
    str, typer.Argument(metavar="NAME[@STAGE]", help="Release name; default stage: production.")
]


def split_release(release: str) -> tuple[str, str]:
    """Return the name and the stage of NAME[@STAGE]."""
    name, _, stage = release.partition("@")
    return name, stage or DEFAULT_STAGE


@app.command(name="list")
def list_(
    name: Annotated[
        str | None, typer.Option(help="List only promotions under exactly this name.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="List only promotions to exactly this stage.")
    ] = None,
    limit: Limit = 20,
    everything: All = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """List current and past promotions, newest first."""
    maximum = maximum_of(limit, everything)
    with connected(server, key) as client:
        promotions = list(client.promotions.list(maximum, name=name, stage=stage))
    if as_json:
        print_json([promotion.raw for promotion in promotions])
        return
    if not promotions:
        typer.echo("There are no such promotions.", err=True)
        return
    print_table(
        ("RELEASE", "RUN", "STATE", "OVERRIDE", "CREATED", "BY"),
        [
            (
                f"{promotion.name}@{promotion.stage}",
                promotion.run_id,
                _state(promotion),
                "yes" if promotion.override is not None else "",
                time_text(promotion.created_at),
                promotion.created_by or "-",
            )
            for promotion in promotions
        ],
        elastic={"RELEASE", "BY"},
    )
    mention_more(len(promotions), maximum)


def _state(promotion: "PromotionView") -> str:
    if promotion.is_current:
        return "current"
    return "superseded" if promotion.withdrawn_at is None else "withdrawn"


@app.command()
def show(release: Release, as_json: AsJson = False, server: Server = None, key: Key = None) -> None:
    """Show the run that has a release name now, and what its promotion overrode."""
    with connected(server, key) as client:
        promotion = client.promotions.get(*split_release(release))
    if as_json:
        print_json(promotion.raw)
        return
    typer.echo(f"{promotion.name}@{promotion.stage}")
    by = f" by {promotion.created_by}" if promotion.created_by else ""
    override = promotion.override
    facts = [
        ("run", promotion.run_id),
        ("created", time_text(promotion.created_at) + by),
        ("report sha256", promotion.report_sha256 or "-"),
        ("override", "none: the report passes" if override is None else override.reason),
    ]
    hindrances = [] if override is None else override.overrode
    print_facts([*facts, *(("overrode", hindrance.detail) for hindrance in hindrances)])


@app.command()
def withdraw(
    release: Release,
    yes: Yes = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Take a release name from its run without giving it to another."""
    name, stage = split_release(release)
    with connected(server, key) as client:
        current = client.promotions.get(name, stage)
        confirm(f"Withdraw {name}@{stage} from {current.run_id}?", yes=yes)
        withdrawn = client.promotions.withdraw(name, stage)
    if as_json:
        print_json(withdrawn.raw)
    else:
        typer.echo(f"{name}@{stage} is withdrawn from {withdrawn.run_id}")
