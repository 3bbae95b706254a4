"""What must be true of a run and of its installation after everything that can happen to them."""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from sqlmodel import select

from service.artifacts import StoredFile
from service.domain.job_kinds import job_kind
from service.domain.merge import merged_folder
from service.domain.states import RESTING, TRANSITIONS, JobStatus
from service.store import program_events
from service.store.tables import Run
from tests.faults.environment import Environment
from tests.faults.record import ADAPTER, Record, Reference, Series, record_of
from tests.support.installation import wait_until

VALUES = ("loss", "grad_norm", "learning_rate", "eval_loss")
"""Metrics that depend on the weights and the data alone, and not on the time that things took."""
TIDY_SECONDS = 20


def violations(
    environment: Environment, run_id: str, end: str, reference: Reference | None, behind: int = 0
) -> list[str]:
    """What is not as it must be, after the run came to `end`; [] is the answer hoped for.

    Without a `reference` the run's values are not compared, everything else is. A run that was
    cancelled or paused has its newest checkpoint at most `behind` steps before its last one.
    """
    record = record_of(environment, run_id)
    found = [
        *state(record, end),
        *numbering(record),
        *stale_writes(record),
        *_series(record),
        *files(environment, record),
    ]
    if reference is not None:
        found += _same(record, reference)
    if end in (JobStatus.CANCELLED, JobStatus.PAUSED):
        found += _kept(environment, record, behind)
    return found


def state(record: Record, end: str) -> Iterator[str]:
    job = record.job
    if job.status != end:
        yield f"the run is {job.status}, not {end}"
    said = [event.data["status"] for event in record.statuses]
    if said[0] != JobStatus.QUEUED or said[-1] != job.status:
        yield f"the status events {said} do not lead to {job.status}"
    for before, after in pairwise(said):
        if JobStatus(after) not in TRANSITIONS[JobStatus(before)]:
            yield f"the status events say {before} -> {after}"
    if record.events[-1].type != "status":
        yield f"the last event is a {record.events[-1].type}"
    for name in ("owner", "lease_expires_at", "request"):
        if getattr(job, name) is not None:
            yield f"the run is {end} and has the {name} {getattr(job, name)}"
    if job.status in RESTING and job.finished_at is None:
        yield "the run has no finished_at"
    if said.count(JobStatus.RUNNING) != job.token:
        yield f"{said.count(JobStatus.RUNNING)} running events, but token {job.token}"


def numbering(record: Record) -> Iterator[str]:
    numbers = record.numbers
    if numbers != list(range(1, len(numbers) + 1)) or record.run.event_count != len(numbers):
        yield f"events are numbered {numbers}, the run counts {record.run.event_count}"
    lines: dict[int, list[int]] = defaultdict(list)
    for event in record.events:
        if event.token is not None and event.seq is not None:
            lines[event.token].append(event.seq)
    for token, seqs in lines.items():
        if seqs != sorted(set(seqs)):
            yield f"attempt {token} said its lines in the order {seqs}"


def stale_writes(record: Record) -> Iterator[str]:
    """An attempt writes between the status event that began it and the next one, and never else."""
    begun = [event for event in record.statuses if event.data["status"] == JobStatus.RUNNING]
    ended = [
        next((later for later in record.statuses if later.number > event.number), None)
        for event in begun
    ]

    def says(token: int | None, number: int) -> bool:
        if token is None:
            return True
        if not 1 <= token <= len(begun) or number < begun[token - 1].number:
            return False
        end = ended[token - 1]
        return end is None or number < end.number

    for event in record.events:
        if not says(event.token, event.number):
            yield f"stale: event {event.number} ({event.type}) by attempt {event.token}"

    # Rows are written in one transaction with the events that announce them.
    announced = {
        (event.token, event.type, key)
        for event in record.events
        for key in _announced(event.type, event.data)
    }
    for metric in record.metrics:
        if (metric.token, "metrics", (metric.step, metric.name, metric.value)) not in announced:
            yield f"stale: {metric.name} at step {metric.step} by attempt {metric.token}"
    for checkpoint in record.checkpoints:
        if (checkpoint.token, "checkpoint", checkpoint.step) not in announced:
            yield f"stale: checkpoint {checkpoint.step} by attempt {checkpoint.token}"
    for evaluation in record.evaluations:
        if (evaluation.token, "evaluation", Record.label(evaluation)) not in announced:
            yield f"stale: evaluation {evaluation.label} by attempt {evaluation.token}"
    for artifact in record.artifacts:
        if artifact.path == job_kind(record.job.kind).log_path(record.job.id):
            # Shipped as it grows, with no event.
            end = ended[artifact.token - 1]
            fresh = end is None or artifact.created_at <= end.created_at
        else:
            fresh = (artifact.token, "artifact", artifact.path) in announced or (
                merged_folder(artifact.path) is not None
                and (artifact.token, "merged", PurePosixPath(artifact.path).name) in announced
            )
        if not fresh:
            yield f"stale: {artifact.path} by attempt {artifact.token}"


def _announced(kind: str, data: dict[str, Any]) -> list[Any]:
    match kind:
        case "metrics":
            return [(data["step"], name, value) for name, value in data["values"].items()]
        case "checkpoint":
            return [data["step"]]
        case "evaluation":
            return [f"{data['target']}/{data['step']}/{data['split']}"]
        case "artifact":
            return [data["file"]["path"]]
        case "merged":
            return [file["path"] for file in data["files"]]
    return []


def _series(record: Record) -> Iterator[str]:
    """The series is without gap, and what a listener of the events would have put together."""
    series = record.series()
    losses = sorted(series.get("loss", {}))
    if losses != list(range(1, len(losses) + 1)):
        yield f"the loss has the steps {losses}"
    last = record.job.step
    # A run that stopped at a step has not yet done what falls on it: to log, to evaluate, to save.
    ends = {last} if record.job.status == JobStatus.SUCCEEDED else {last, last - 1}
    if losses and losses[-1] not in ends:
        yield f"the loss ends at step {losses[-1]}, the run at {last}"
    heard: Series = defaultdict(dict)
    for event in record.events:
        if event.type == "metrics":
            for name, value in event.data["values"].items():
                if event.data["step"] in heard[name]:
                    yield f"events say {name} of step {event.data['step']} twice"
                heard[name][event.data["step"]] = value
        elif event.type == "rewound":
            for points in heard.values():
                for step in [step for step in points if step > event.data["step"]]:
                    del points[step]
    if {name: points for name, points in heard.items() if points} != series:
        yield "the events do not add up to the series"


def files(environment: Environment, record: Record) -> Iterator[str]:
    for key, size, digest in record.files():
        if not environment.store.exists(key):
            yield f"{key} is not in the store"
        elif content_of(environment, key) != StoredFile(size, digest):
            yield f"{key} is not what its row says"


def content_of(environment: Environment, key: str) -> StoredFile:
    """What the store has under a key."""
    digest, size = hashlib.sha256(), 0
    for chunk in environment.store.chunks(key):
        digest.update(chunk)
        size += len(chunk)
    return StoredFile(size, digest.hexdigest())


def _same(record: Record, reference: Reference) -> Iterator[str]:
    """As far as the run came it is the undisturbed one, bit for bit."""
    finished = record.job.status == JobStatus.SUCCEEDED
    last = reference.steps if finished else record.job.step
    series = record.series()
    for name in VALUES:
        expected = {step: v for step, v in reference.series[name].items() if step <= last}
        found = series.get(name, {})
        # As above: stopped at the last one.
        ignored = {last} if not finished else set()
        different = sorted(
            step
            for step in (expected.keys() | found.keys()) - ignored
            if expected.get(step, math.nan) != found.get(step, math.nan)
        )
        if different:
            yield f"{name} differs at the steps {different}: {found}, undisturbed {expected}"
    for checkpoint in record.checkpoints:
        expected_files = reference.checkpoints.get(checkpoint.step)
        if expected_files and Record.learned(checkpoint) != expected_files:
            yield f"checkpoint {checkpoint.step} has other weights than undisturbed"
    if finished:
        adapter = [one.sha256 for one in record.artifacts if one.path == ADAPTER]
        if adapter != [reference.adapter]:
            yield "the adapter has other weights than undisturbed"
        scores = {Record.label(one): one.metrics for one in record.evaluations}
        if scores != reference.evaluations:
            yield f"the evaluations are {scores}, undisturbed {reference.evaluations}"


def _kept(environment: Environment, record: Record, behind: int) -> Iterator[str]:
    """What was learned is in a checkpoint that can be downloaded."""
    last = record.job.step
    step = max((one.step for one in record.checkpoints), default=0)
    if not last - behind <= step <= last:
        yield f"stopped at step {last}, with the newest checkpoint at {step}"
    if not step:
        return
    answer = environment.client.get(
        f"/v1/runs/{record.run.id}/checkpoints/{step}/download", params={"path": ADAPTER}
    )
    if answer.status_code != 200 or not answer.content:
        yield f"checkpoint {step} cannot be downloaded: {answer.status_code}"


def leftovers(environment: Environment) -> list[str]:
    """Processes and files that nobody owns, once there was time to tidy."""
    try:
        wait_until(lambda: not _leftovers(environment), TIDY_SECONDS)
    except AssertionError:
        return _leftovers(environment)
    return []


def _is_cached(path: Path) -> bool:
    """True for a whole file of the weights' cache, which outlives the jobs that use it."""
    return path.parent.name == ".weights" and re.fullmatch("[0-9a-f]{64}", path.name) is not None


def _leftovers(environment: Environment) -> list[str]:
    found = [f"the process {child.pid} is left" for child in environment.children()]
    with environment.database.read() as session:
        named = set()
        for run_id in session.exec(select(Run.id)):
            named |= program_events.keys_of(session, run_id)
    for one in environment.store.entries():
        if one.half is not None:
            found.append(f"half of {one.key} is in the store")
        elif one.key.startswith("runs/") and one.key not in named:
            found.append(f"{one.key} in the store belongs to no row")
        elif PurePosixPath(one.key).name.startswith("."):
            found.append(f"{one.key} is left in the store")
    jobs_dir = environment.settings.jobs_dir
    if jobs_dir.is_dir():
        found += [
            f"{path.relative_to(jobs_dir)} is left in the jobs directory"
            for path in [*jobs_dir.iterdir(), *jobs_dir.glob(".weights/*")]
            if path.name != ".weights" and not _is_cached(path)
        ]
    if environment.setting != "servers":
        messages = environment.settings.data_dir / "broker" / "messages"
        found += [f"{path.name} is left in the broker" for path in messages.glob(".*")]
    return found
