"""`fairtune train`: the training script's call, with a run of the service behind it."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from service.cli.connection import Key, Server
from service.cli.errors import ExitStatus, refuse
from service.cli.original.arguments import Flaw, Refused, parse_flags, read_config
from service.cli.original.mirror import LOG_FILE, Mirror, TrainingLog
from service.cli.original.output_directory import OutputDirectory, State, digests_of
from service.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from fairtune import Client, Run
    from service.cli.original.specification import TrainingRequest

INTERRUPTED = 130


class TrainCommand(TyperCommand):
    """Lists the keys after the options in --help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from service.cli.original.keys import GROUPS
        from service.cli.tables import print_table

        super().format_help(ctx, formatter)
        typer.echo(
            "Keys of the configuration file, each also a flag (--lora_r 64, --lora-r=64, --bf16 "
            "false, --no_bf16); an omitted key has the value of the preset default:"
        )
        for title, keys in GROUPS.items():
            typer.echo()
            print_table([title, ""], [(f"--{key.name}", key.help) for key in keys])


_UNFINISHED = ("queued", "running", "paused")


def _refuse_flaws(flaws: list[Flaw]) -> NoReturn:
    for flaw in flaws[:-1]:
        typer.echo(f"{flaw.where}: {flaw.detail}", err=True)
    refuse(f"{flaws[-1].where}: {flaws[-1].detail}", status=ExitStatus.USAGE)


def train(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config_file", "--config-file", help="Flat JSON configuration; flags override it."
        ),
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Train as the training script did: its configuration and flags, its files in output_dir.

    Uses the running server, or starts one until the run has ended. Ctrl-C pauses the run, and the
    same command continues it.
    """
    from service.cli.original.base_model import local_model, refuse_path
    from service.cli.temporary_server import connected_or_started

    request = _read(config_file, context.args)
    for note in request.notes:
        _say(note)
    model = local_model(request)
    # TERM is handled like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = OutputDirectory(request.output_dir)
    models_dir = None if model is None else model.parent
    try:
        with (
            directory.locked(),
            connected_or_started(server, key, purpose="train", models_dir=models_dir) as in_use,
        ):
            if model is not None:
                if not in_use.is_temporary:
                    refuse_path(model)
                request.specification["base_model"] = model.name
            _train(in_use.client, request, directory, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _read(config_file: Path | None, arguments: list[str]) -> "TrainingRequest":
    """Return the request. Exits with every flaw of the file and the flags, one a line."""
    from service.cli.original.specification import resolve

    flaws: list[Flaw] = []
    config: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    try:
        flags = parse_flags(arguments)
    except Refused as error:
        flags, flaws = error.values, error.flaws
    try:
        config = {} if config_file is None else read_config(config_file)
    except Refused as error:
        config = error.values
        flaws += error.flaws
    except OSError as error:
        flaws.append(Flaw(f"config_file {config_file}", error.strerror or str(error)))
    try:
        request = resolve(config, flags)
    except Refused as error:
        named = {flaw.where.strip("-").replace("-", "_") for flaw in flaws}
        flaws += [flaw for flaw in error.flaws if flaw.where not in named]
    if flaws:
        _refuse_flaws(flaws)
    return request


def _train(
    client: "Client", request: "TrainingRequest", directory: OutputDirectory, *, as_json: bool
) -> None:
    import fairtune
    from service.cli.original.keys import key_of_pointer

    try:
        run, state = _run_of(client, request, directory)
    except fairtune.InvalidRequest as error:
        _refuse_flaws(
            [Flaw(key_of_pointer(item.pointer), item.detail) for item in error.errors]
            or [Flaw("train", error.detail)]
        )
    log = TrainingLog(directory.path / LOG_FILE)
    log.start_copying(client, run.id)
    mirror = Mirror(run, directory, state, log, request.logging_dir, _say)
    try:
        mirror.follow()
    except KeyboardInterrupt:
        _pause(run)
        log.finish(5)
        raise
    log.finish()
    if log.failure is not None:
        _say(f"{LOG_FILE} is incomplete: {log.failure}")
    _finish(run.refresh(), mirror, directory, as_json=as_json)


def _run_of(
    client: "Client", request: "TrainingRequest", directory: OutputDirectory
) -> tuple["Run", State]:
    """Return the run of the output directory if it continues, else a new one."""
    digests = digests_of(request.files)
    state = directory.read_state()
    if state is not None and not request.starts_anew:
        run = _continued(client, request, state, digests)
        if run is not None:
            return run, state
    dataset = client.datasets.create(request.specification["name"], **request.files)  # type: ignore[arg-type]
    for warning in dataset.warnings:
        _say(f"{warning.code}: {warning.detail}")
    plan = client.runs.plan(dataset, spec=request.specification)
    for planned in plan.coded_warnings:
        _say(f"{planned.code}: {planned.detail}")
    run = client.runs.create(dataset, spec=request.specification)
    _say(f"{run.id}: {plan.total_steps} steps on {dataset.id}, {dataset.stats.rows} rows")
    earlier = [] if state is None else state.checkpoints
    state = State(run.id, request.specification, digests, earlier)
    directory.remove_checkpoints(state, ())
    return run, state


def _continued(
    client: "Client", request: "TrainingRequest", state: State, digests: dict[str, str]
) -> "Run | None":
    """Return the unfinished run of the output directory, resumed; None if there is none.

    Exits if it was started with other settings.
    """
    from fairtune import NotFound

    try:
        run = client.runs.get(state.run_id)
    except NotFound:
        return None
    is_retried = run.status == "failed" and request.retries_failed
    if run.status not in _UNFINISHED and not is_retried:
        return None
    if differences := state.differences(request.specification, digests):
        refuse(
            f"{request.output_dir} has the run {run.id}, which is {run.status} and was started "
            f"otherwise ({', '.join(differences)}): repeat its settings to continue it, choose "
            "another output_dir, or start anew with --overwrite_output_dir"
        )
    if run.status == "paused":
        run.resume()
    elif is_retried:
        run.retry()
    _say(f"{run.id} continues at step {run.step}.")
    return run


def _pause(run: "Run") -> None:
    """Pause the run and wait for it; a second Ctrl-C leaves at once."""
    from fairtune import FairtuneError

    _say("The run is being paused at its next step … (Ctrl-C again: leave without waiting)")
    try:
        run.pause()
        run.wait(check=False)
    except FairtuneError as error:
        _say(str(error))
    _say(f"{run.id} is {run.status}. The same command continues it.")


def _finish(run: "Run", mirror: Mirror, directory: OutputDirectory, *, as_json: bool) -> None:
    if run.status != "succeeded":
        from fairtune import JobFailed

        if as_json:
            print_json(run.raw)
        raise JobFailed(run)
    names = mirror.copy_results()
    if as_json:
        print_json(run.raw)
        return
    if "report.json" in names:
        from service.fairness.schema import BiasReport
        from service.fairness.text import print_report

        text = (directory.path / "report.json").read_text("utf-8")
        print_report(BiasReport.model_validate_json(text))
    else:
        _say("There is no bias report: the rows have no labels.")
    typer.echo(f"{run.id} succeeded; its files are in {directory.path}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
