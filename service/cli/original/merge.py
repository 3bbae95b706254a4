"""`fairtune merge`: the merge script's call."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from service.cli.connection import Key, Server
from service.cli.errors import ExitStatus, refuse
from service.cli.original.spellings import NO_EFFECT, spellings
from service.cli.output import AsJson, print_json


def merge(
    adapter_path: Annotated[
        str,
        typer.Option(*spellings("adapter_path"), help="Adapter directory, or run (run_…)."),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(*spellings("output_dir"), help="Directory that receives the merged model."),
    ],
    base_model: Annotated[
        str | None,
        typer.Option(
            *spellings("base_model"),
            help="Base model of an adapter directory; default: the one that it names.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option(help="Data type of the merged weights; default: bfloat16."),
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option(*spellings("cache_dir"), hidden=True, help=NO_EFFECT)
    ] = None,
    device_map: Annotated[
        str | None, typer.Option(*spellings("device_map"), hidden=True, help=NO_EFFECT)
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Merge an adapter into its base model and download the merged model.

    Uses the running server, or starts one for the merge. The script's --cache_dir and --device_map
    are accepted and have no effect.
    """
    from service.cli.original.imported import (
        BaseModel,
        adapter_directory,
        base_model_of,
        import_adapter,
        server_with,
        wait_or_cancel,
    )

    if names := [n for n, v in (("cache_dir", cache_dir), ("device_map", device_map)) if v]:
        typer.echo(f"Without effect here: {', '.join(names)}.", err=True)
    adapter = adapter_directory(adapter_path, "adapter_path")
    if adapter is None and not adapter_path.startswith("run_"):
        refuse(
            f"adapter_path: {adapter_path} is neither a directory with an adapter_config.json nor "
            "a run",
            status=ExitStatus.USAGE,
        )
    base = BaseModel(None, None) if adapter is None else base_model_of(adapter, base_model)
    with server_with(
        server, key, purpose="merge", model=base.directory, option="base_model"
    ) as client:
        if adapter is None:
            run = client.runs.get(adapter_path)
            if base_model not in (None, run.spec.base_model):
                refuse(f"base_model: {run.id} was trained on {run.spec.base_model}")
        else:
            options: dict[str, Any] = {"quantization": {"load_in_4bit": False}}
            if base.name is not None:
                options["base_model"] = base.name
            run = import_adapter(client, adapter, options)
        merged = run.merge(dtype=dtype)
        wait_or_cancel(merged)
        merged.download(output_dir, progress=True)
    if as_json:
        print_json(merged.raw)
    else:
        typer.echo(f"{merged.id}: {len(merged.files)} files are in {output_dir}")
