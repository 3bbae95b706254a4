"""What can happen to an installation, at random; most of it is taken back after a while."""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable

import psutil

from tests.faults.environment import API, Environment


class ChaosRun:
    """Strikes one thing at a time. Everything is done on the caller's thread, and counted."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self.environment = environment
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.away: set[str] = set()
        """What something is being done to."""
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # -- faults --------------------------------------------------------------------------------

    def strike(self) -> None:
        """Do one thing, chosen at random; most are taken back after a while."""
        chances = {
            self.kill_program: 5,
            self.freeze_program: 2,
            self.kill_worker: 4,
            self.freeze_worker: 3,
            self.tell_worker: 3,
            self.cut_worker_off: 2 if self.environment.setting == "servers" else 0,
            self.kill_api: 2,
            self.kill_broker: 1,
            self.cut_broker: 1,
            self.flush_broker: 1,
            self.cut_database: 2,
        }
        (fault,) = self.random.choices([*chances], [*chances.values()])
        fault()

    def _after(self, least: float, most: float, what: Callable[[], None]) -> None:
        at = time.monotonic() + self.random.uniform(least, most)
        heapq.heappush(self._later, (at, next(self._order), what))

    def take_back(self, *, everything: bool = False) -> None:
        """Run what is due of the things put off until later."""
        while self._later and (everything or self._later[0][0] <= time.monotonic()):
            heapq.heappop(self._later)[2]()
            # With `everything`, what waits for a process to end is put off again and again.

    def _worker(self) -> str | None:
        free = [worker for worker in self.environment.workers if worker not in self.away]
        return self.random.choice(free) if free else None

    def _start(self, part: str) -> None:
        self.environment.start_part(part)
        self.away.discard(part)

    def _programs(self) -> list[psutil.Process]:
        return [one for one in self.environment.children() if one.status() != psutil.STATUS_ZOMBIE]

    def kill_program(self) -> None:
        for program in self._programs()[:1]:
            program.kill()
            self.done["program: SIGKILL"] += 1

    def freeze_program(self) -> None:
        programs = self._programs()
        if programs:
            program = self.random.choice(programs)
            program.suspend()
            self.done["program: SIGSTOP"] += 1
            self._after(0.5, 12, lambda: _resume(program))

    def kill_worker(self) -> None:
        if worker := self._worker():
            self.away.add(worker)
            self.environment.kill(worker)
            self.done["worker: SIGKILL"] += 1
            self._after(0, 3, lambda: self._start(worker))

    def freeze_worker(self) -> None:
        if worker := self._worker():
            self.away.add(worker)
            process = self.environment.process(worker)
            # A connection that is cut off holds its transaction open until it is restored, which
            # waits for this; and PostgreSQL ends one that stands still, as SQLite does not.
            self.environment.freeze(worker, anywhere=self.environment.setting == "servers")
            self.done["worker: SIGSTOP"] += 1

            def resume() -> None:
                _resume(process)
                self.away.discard(worker)

            self._after(0.5, 2.5 * self.environment.settings.lease_seconds, resume)

    def tell_worker(self) -> None:
        if worker := self._worker():
            self.away.add(worker)
            self.environment.tell(worker)
            self.done["worker: SIGTERM"] += 1
            if self.random.random() < 0.3:
                self._after(0, 1, lambda: self.environment.tell(worker))
            self._after(1, 1, lambda: self._start_when_ended(worker))

    def _start_when_ended(self, worker: str) -> None:
        if self.environment.has_ended(worker):
            self._start(worker)
        else:
            self._after(0.5, 0.5, lambda: self._start_when_ended(worker))

    def cut_worker_off(self) -> None:
        if worker := self._worker():
            self.away.add(worker)
            self.environment.outages.stall_database(worker)
            self.done["worker: database connection stalled"] += 1

            def restore() -> None:
                self.environment.outages.restore()
                self.away.discard(worker)

            self._after(0.5, 2 * self.environment.settings.lease_seconds, restore)

    def kill_api(self) -> None:
        if API not in self.away:
            self.away.add(API)
            self.environment.kill(API)
            self.done["API: SIGKILL"] += 1
            self._after(0, 2, lambda: self._start(API))

    def kill_broker(self) -> None:
        self._take("broker", "killed and emptied", self.environment.outages.kill_broker)

    def cut_broker(self) -> None:
        self._take("broker", "cut off", self.environment.outages.cut_broker)

    def flush_broker(self) -> None:
        if "broker" not in self.away:
            self.environment.outages.flush_broker()
            self.done["broker: emptied"] += 1

    def cut_database(self) -> None:
        self._take("database", "cut off", self.environment.outages.cut_database)

    def _take(self, what: str, how: str, take: Callable[[], None]) -> None:
        if what in self.away:
            return
        self.away.add(what)
        take()
        self.done[f"{what}: {how}"] += 1

        def restore() -> None:
            self.environment.outages.restore()
            self.away -= {"broker", "database"}

        self._after(0.2, 2 * self.environment.settings.lease_seconds, restore)


def _resume(process: psutil.Process) -> None:
    try:
        process.resume()
    except psutil.NoSuchProcess:
        return
