"""The containers of one compose project, through compose's and the engine's own command lines."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "fairtune-test"
TAG = "test"
SETTINGS = ROOT / "tests" / "compose" / "drive.env"
# What a person has set for a service of their own must not reach this one.
_FOREIGN = ("FAIRTUNE_", "POSTGRES_", "REDIS_", "API_", "WORKER_", "COMPOSE_", "HF_")


class Failed(Exception):
    """A step of the drive, with what was seen."""


def wait_until(what: str, seen: Callable[[], Any], seconds: float, every: float = 1.0) -> Any:
    """The first true answer of `seen`. Raises Failed when none came in time."""
    deadline = time.monotonic() + seconds
    while not (answer := seen()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(every)
    return answer


class Stack:
    """A project of its own: its volumes, networks and images are nobody else's."""

    def __init__(self, compose: str, engine: str, port: int) -> None:
        files = ["--project-name", PROJECT, "--env-file", str(SETTINGS)]
        self._compose = [*shlex.split(compose), *files, "--file", "docker-compose.yml"]
        self._engine = engine
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self._environment = kept | {"FAIRTUNE_PORT": str(port), "IMAGE_TAG": TAG}
        self.workers = 1

    def compose(self, *arguments: str, seconds: float = 600, check: bool = True) -> str:
        """Standard output of a compose command. Raises Failed where it fails or takes too long."""
        # docker compose knows which workers there are; podman-compose, what the file says.
        environment = self._environment | {"CPU_WORKERS": str(self.workers)}
        return _run([*self._compose, *arguments], environment, seconds, check=check)

    def build(self, service: str) -> None:
        self.compose("build", service, seconds=3600)

    def up(self) -> None:
        self.compose("up", "--detach", "--scale", f"worker={self.workers}")

    def down(self, *, volumes: bool = False) -> None:
        more = ["--volumes"] if volumes else []
        self.compose("down", "--remove-orphans", *more, check=not volumes)

    def logs(self, service: str) -> str:
        return self.compose("logs", service)

    def exec(self, service: str, *command: str) -> str:
        return self.compose("exec", "-T", service, *command)

    def succeeds(self, *arguments: str) -> bool:
        return self._ended(arguments).returncode == 0

    def piped(self, *arguments: str, sent: bytes = b"") -> bytes:
        """Standard output of a compose command that reads `sent`. Raises Failed."""
        run = self._ended(arguments, sent)
        if run.returncode:
            raise Failed(f"{shlex.join(arguments)}: {run.stderr.decode()}")
        return run.stdout

    def refused(self, service: str, **variables: str) -> str:
        """What a one-off container of `service` says that must not start with these variables."""
        given = [f"--env={name}={value}" for name, value in variables.items()]
        run = self._ended(("run", "--rm", "--no-deps", *given, service))
        if run.returncode == 0:
            raise Failed(f"{service} started with {variables}")
        return (run.stdout + run.stderr).decode()

    def _ended(
        self, arguments: tuple[str, ...], sent: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._compose, *arguments],
            cwd=ROOT,
            env=self._environment | {"CPU_WORKERS": str(self.workers)},
            input=sent,
            capture_output=True,
            timeout=600,
        )

    # -- what only the engine knows ------------------------------------------------------------

    def engine(self, *arguments: str, check: bool = True) -> str:
        return _run([self._engine, *arguments], self._environment, 600, check=check)

    def running(self, service: str) -> list[str]:
        """Ids of the service's containers that run now."""
        labels = {"project": PROJECT, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={one}" for key, one in labels.items()]
        return self.engine("ps", "--quiet", "--no-trunc", *filters).split()

    def first_key(self) -> str:
        """Content of the file that `migrate` has written."""
        labels = {"project": PROJECT, "service": "migrate"}
        filters = [f"--filter=label=com.docker.compose.{key}={one}" for key, one in labels.items()]
        (container,) = self.engine("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        with tempfile.TemporaryDirectory() as folder:
            self.engine("cp", f"{container}:/var/lib/fairtune/first-key", folder)
            return (Path(folder) / "first-key").read_text()

    def kill(self, container: str) -> None:
        """SIGKILL to everything in it. The restart policy leaves alone what a person has killed."""
        self.engine("kill", "--signal", "KILL", container)

    def exit_status(self, container: str) -> int:
        return int(self.engine("inspect", "--format", "{{.State.ExitCode}}", container))

    def events(self, container: str) -> list[dict[str, Any]]:
        """The service's log lines of a container, which are JSON objects."""
        run = subprocess.run(
            [self._engine, "logs", container], capture_output=True, text=True, timeout=60
        )
        lines = (run.stdout + run.stderr).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def image_bytes(self, image: str) -> int:
        return int(self.engine("image", "inspect", "--format", "{{.Size}}", f"{image}:{TAG}"))

    def version(self) -> str:
        return self.engine("--version").strip()

    def last_words(self, lines: int = 60) -> str:
        """The end of every container's log, for a person."""
        text = []
        for service in ("postgres", "redis", "migrate", "api", "worker"):
            said = self.compose("logs", service, check=False).splitlines()[-lines:]
            text.append(f"--- {service}\n" + "\n".join(said))
        return "\n".join(text)


def _run(command: list[str], environment: dict[str, str], seconds: float, *, check: bool) -> str:
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"not within {seconds:g} s: {shlex.join(command)}") from None
    if check and run.returncode:
        print(run.stdout, run.stderr, sep="\n", file=sys.stderr)
        raise Failed(f"exit status {run.returncode}: {shlex.join(command)}")
    return run.stdout + ("" if check else run.stderr)
