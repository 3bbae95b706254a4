"""Which installation stands: rows share it as long as they leave it whole."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.faults.disks import Disk, small_disk
from tests.faults.house import WORKERS, House
from tests.faults.scene import dataset


class Houses:
    """One installation at a time. Another setting, or a row that failed, wants a new one."""

    def __init__(
        self, folder: Path, models: Path, servers: Mapping[str, Callable[[], Any]]
    ) -> None:
        """`servers`: what each setting stands on, made when it is wanted."""
        self._folder = folder
        self._models = models
        self._servers = servers
        self._count = 0
        self._house: House | None = None
        self._dataset_id = ""

    @contextlib.contextmanager
    def open(
        self, setting: str, settings: dict[str, float] | None = None
    ) -> Iterator[tuple[House, str]]:
        """The installation of that setting, and a dataset in it.

        `settings` are the workers' while the context lasts. An error ends the installation, so
        that it cannot touch another test.
        """
        house, dataset_id = self._get(setting)
        environment = {
            f"FAIRTUNE_{name.upper()}": str(value) for name, value in (settings or {}).items()
        }
        try:
            if environment:
                self._restart_workers(house, **environment)
            yield house, dataset_id
            if environment:
                self._restart_workers(house)
        except BaseException:
            print(house.log_tail())
            self.demolish()
            raise

    @contextlib.contextmanager
    def open_on_disk(self, setting: str, place: str) -> Iterator[tuple[House, str, Disk]]:
        """An installation of its own, with a small disk at `place` below its data directory."""
        folder = self._new_folder()
        with small_disk(folder / "data" / place) as disk:
            house = self._build(setting, folder)
            try:
                yield house, house.start_all().upload(dataset()), disk
            except BaseException:
                print(house.log_tail())
                raise
            finally:
                house.demolish()

    def demolish(self) -> None:
        if self._house is not None:
            self._house.demolish()
            self._house = None

    def _get(self, setting: str) -> tuple[House, str]:
        if self._house is not None and self._house.setting != setting:
            self.demolish()
        if self._house is None:
            self._house = self._build(setting, self._new_folder())
            self._dataset_id = self._house.start_all().upload(dataset())
        return self._house, self._dataset_id

    def _new_folder(self) -> Path:
        self._count += 1
        return self._folder / f"house{self._count}"

    def _build(self, setting: str, folder: Path) -> House:
        server = self._servers[setting]() if setting in self._servers else None
        return House(setting, folder, self._models, server)

    @staticmethod
    def _restart_workers(house: House, **environment: str) -> None:
        house.kill(*WORKERS)
        for worker in WORKERS:
            house.start_part(worker, **environment)
        house.assert_workers_listen()
