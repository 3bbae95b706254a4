"""Which installation stands: cases share it as long as they leave it whole."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.faults.case_run import dataset
from tests.faults.disks import Disk, small_disk
from tests.faults.environment import WORKERS, Environment


class Environments:
    """One installation at a time. Another setting, or a case that failed, wants a new one."""

    def __init__(
        self, folder: Path, models: Path, servers: Mapping[str, Callable[[], Any]]
    ) -> None:
        """`servers`: what each setting stands on, made when it is wanted."""
        self._folder = folder
        self._models = models
        self._servers = servers
        self._count = 0
        self._environment: Environment | None = None
        self._dataset_id = ""

    @contextlib.contextmanager
    def open(
        self, setting: str, settings: dict[str, float] | None = None
    ) -> Iterator[tuple[Environment, str]]:
        """The installation of that setting, and a dataset in it.

        `settings` are the workers' while the context lasts. An error ends the installation, so
        that it cannot touch another test.
        """
        environment, dataset_id = self._get(setting)
        variables = {
            f"FAIRTUNE_{name.upper()}": str(value) for name, value in (settings or {}).items()
        }
        try:
            if variables:
                self._restart_workers(environment, **variables)
            yield environment, dataset_id
            if variables:
                self._restart_workers(environment)
        except BaseException:
            print(environment.log_tail())
            self.close()
            raise

    @contextlib.contextmanager
    def open_on_disk(self, setting: str, place: str) -> Iterator[tuple[Environment, str, Disk]]:
        """An installation of its own, with a small disk at `place` below its data directory."""
        folder = self._new_folder()
        with small_disk(folder / "data" / place) as disk:
            environment = self._build(setting, folder)
            try:
                yield environment, environment.start_all().upload(dataset()), disk
            except BaseException:
                print(environment.log_tail())
                raise
            finally:
                environment.close()

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _get(self, setting: str) -> tuple[Environment, str]:
        if self._environment is not None and self._environment.setting != setting:
            self.close()
        if self._environment is None:
            self._environment = self._build(setting, self._new_folder())
            self._dataset_id = self._environment.start_all().upload(dataset())
        return self._environment, self._dataset_id

    def _new_folder(self) -> Path:
        self._count += 1
        return self._folder / f"environment{self._count}"

    def _build(self, setting: str, folder: Path) -> Environment:
        server = self._servers[setting]() if setting in self._servers else None
        return Environment(setting, folder, self._models, server)

    @staticmethod
    def _restart_workers(environment: Environment, **variables: str) -> None:
        environment.kill(*WORKERS)
        for worker in WORKERS:
            environment.start_part(worker, **variables)
        environment.assert_workers_listen()
