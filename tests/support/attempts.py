"""A supervisor's attempts, with a program that does what each test says, in a tenth of a second."""

import sys
import textwrap
import threading

from service.store import jobs
from service.store.runs import find_artifact, get_run
from worker.supervision.retry import Shutdown
from worker.supervision.supervisor import Supervisor

PROGRAM = """
import datetime, hashlib, json, os, pathlib, signal, sys, time

directory = pathlib.Path(sys.argv[1])
job = json.loads((directory / "job.json").read_text())
path = directory / "events.jsonl"
seq = len(path.read_bytes().splitlines()) if path.exists() else 0


def say(type, **fields):
    global seq
    seq += 1
    now = datetime.datetime.now(datetime.UTC).isoformat()
    with path.open("a") as file:
        file.write(json.dumps({"seq": seq, "time": now, "type": type, **fields}) + "\\n")


def log(text):
    print(text, flush=True)


def save(step):
    place = directory / "checkpoints" / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "adapter.bin").write_bytes(b"weights" * step)
    digest = hashlib.sha256(b"weights" * step).hexdigest()
    file = {"path": "adapter.bin", "size": 7 * step, "sha256": digest}
    say("checkpoint", step=step, epoch=0, path=f"checkpoints/checkpoint-{step}",
        files=[file], metrics={}, best_step=None)


def fail(reason, **fields):
    say("failure", reason=reason, detail="it did not work", **fields)
    sys.exit(3)


def train_forever():
    say("phase", phase="training")
    signal.signal(signal.SIGTERM, lambda *_: (save(7), os._exit(4)))
    say("progress", step=1, total_steps=9, epoch=0)
    while True:
        signal.pause()


"""


class House:
    """Runs attempts at a run's train job, or at the job named, with a program of the test's."""

    def __init__(self, context, run_id, tmp_path, monkeypatch, job_id=None) -> None:
        self.context = context
        self.run_id = run_id
        self.job_id = job_id
        self.tmp_path = tmp_path
        self.settings = context.settings.model_copy(
            update={"poll_seconds": 0.02, "lease_seconds": 2, "stop_grace_seconds": 20}
        )
        self.shutdown = Shutdown()
        wrapper = tmp_path / "python"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/program.py" "$3"\n')
        wrapper.chmod(0o755)
        monkeypatch.setattr("worker.supervision.program_process.sys.executable", str(wrapper))
        monkeypatch.setattr("worker.supervision.retry._BACKOFF_SECONDS", (0.05,))

    def attempt(self, program: str, **settings) -> Supervisor:
        """Claim the job for a program; `run` is the caller's."""
        (self.tmp_path / "program.py").write_text(PROGRAM + textwrap.dedent(program))
        with self.context.database.write() as session:
            job_id = self.job_id or get_run(session, self.run_id)[1].id
            claim = jobs.claim(session, job_id, "a worker", 60)
        assert claim is not None
        given = self.settings.model_copy(update=settings)
        context = self.context
        return Supervisor(given, context.database, context.store, claim, self.shutdown)

    def play(self, program: str, **settings) -> None:
        self.attempt(program, **settings).run()
        assert list(self.settings.jobs_dir.iterdir()) == []

    @property
    def job(self):
        with self.context.database.read() as session:
            if self.job_id is not None:
                return jobs.get(session, self.job_id)
            return get_run(session, self.run_id)[1]

    @property
    def log(self) -> str:
        with self.context.database.read() as session:
            found = find_artifact(session, self.run_id, "training.log")
        if found is None:
            return ""
        return b"".join(self.context.store.chunks(found.key)).decode()

    def events(self, client, kind):
        data = client.get(f"/v1/runs/{self.run_id}/events?limit=1000").json()["data"]
        return [event["data"] for event in data if event["type"] == kind]


def in_background(supervisor: Supervisor) -> threading.Thread:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    return thread
