"""An API as a process, and `fairtune` as a program that talks to it; workers are acted by hand."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.cli.temporary_server import free_port
from service.context import Context
from service.settings import Settings
from tests.support.installation import Service


class ServedApi:
    """An API on SQLite: its address, a client, and the context in which a fake worker works."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.http, self.folder = service.client, folder
        self.url = f"http://{service.settings.host}:{service.settings.port}"
        self.context = Context.make(service.settings)

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start `fairtune` as a program with pipes for its streams."""
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith("FAIRTUNE_")
        }
        more = options.pop("environment", {})
        streams = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli.main", *arguments],
            env=ours | {"FAIRTUNE_URL": self.url, "COLUMNS": "80"} | more,
            **({"text": True, "cwd": self.folder} | streams | options),
        )

    def fairtune(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `fairtune` as a program to its end."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@contextlib.contextmanager
def served_api(folder: Path, migrated_sqlite: Path, **fields: Any) -> Iterator[ServedApi]:
    database = folder / "fairtune.db"
    shutil.copyfile(migrated_sqlite, database)
    settings = Settings(
        data_dir=folder / "data", database_url=f"sqlite:///{database}", port=free_port(), **fields
    )
    service = Service(settings, folder / "service.log")
    try:
        service.start("api")
        api = ServedApi(service.ready(), folder)
        yield api
        api.context.database.dispose()
    finally:
        service.stop()
