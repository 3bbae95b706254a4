"""The registry of job kinds: a new kind needs an entry and a program, and no switch elsewhere."""

import ast
from pathlib import Path

import pytest

from service.api.schemas.base import Failure
from service.domain.errors import Conflict
from service.domain.job_kinds import KINDS, job_kind, names_in, queue_names
from service.store import job_control, jobs, monitoring
from service.store.runs import artifacts
from service.usecases import retention
from tests.support.fifth_kind import COUNT
from worker.supervision.retry import Shutdown
from worker.supervision.supervisor import Supervisor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def count(monkeypatch):
    monkeypatch.setitem(KINDS, COUNT.name, COUNT)
    return COUNT


def attempt(context, job_id):
    """Claim the job as a worker of its queue does, and supervise its program."""
    with context.database.write() as session:
        claim = jobs.claim_next(session, "a worker", 60, names_in(["counts"]))
    assert claim is not None
    assert claim.job_id == job_id
    settings = context.settings.model_copy(update={"poll_seconds": 0.05})
    Supervisor(settings, context.database, context.store, claim, Shutdown()).run()
    with context.database.read() as session:
        return jobs.get(session, job_id)


def create(context, run_id, texts):
    with context.database.write() as session:
        return jobs.create(session, run_id, COUNT, params={"texts": texts}).id


def files(context, run_id):
    with context.database.read() as session:
        return {
            file.path: b"".join(context.store.chunks(file.key))
            for file in artifacts(session, run_id)
        }


def test_a_fifth_kind_runs_from_its_creation_to_its_end(context, client, run_id, count):
    assert queue_names() == ["jobs", "predictions", "counts"]
    job_id = create(context, run_id, ["a", "b"])
    with context.database.read() as session:
        assert jobs.queue_position(session, jobs.get(session, job_id)) == 1
    job = attempt(context, job_id)
    assert job.status == "succeeded", job.failure_detail
    result = count.result_id(job_id)
    content = files(context, run_id)
    assert set(content) == {f"counts/{result}/count.txt", f"counts/{result}/count.log"}
    assert content[f"counts/{result}/count.txt"].startswith(b"2 ")
    events = client.get(f"/v1/runs/{run_id}/events?limit=1000").json()["data"]
    own = [event["data"] for event in events if event["data"].get("count_id") == result]
    states = [data["status"] for data in own if data.get("kind") == "count"]
    assert states == ["queued", "running", "succeeded"]
    with context.database.read() as session:
        assert monitoring.ended(session)["count", "succeeded"] == 1
        with pytest.raises(Conflict, match="the count has already succeeded"):
            job_control.cancel(session, jobs.get(session, job_id))
    client.post(f"/v1/runs/{run_id}/cancel")
    retention.delete_run(context.database, context.store, run_id)
    assert client.get(f"/v1/runs/{run_id}").status_code == 404


def test_a_fifth_kind_that_fails_has_its_advice_and_shows_no_files(context, run_id, count):
    job_id = create(context, run_id, [])
    for _ in range(2):  # in the same way, so there is no third
        job = attempt(context, job_id)
    assert (job.status, job.failure_reason) == ("failed", "internal")
    failure = Failure.of(job)
    assert failure is not None
    assert failure.advice == count.advice["internal"].text
    assert files(context, run_id) == {}


# -- no switch elsewhere ---------------------------------------------------------------------------

MEMBERS = {"TRAIN", "EVALUATE", "MERGE", "PREDICT"}

# The queries of a kind's own resource select its jobs; nothing else may.
QUERIES = {
    "service/store/evaluations.py": {"EVALUATE"},
    "service/store/merges.py": {"MERGE"},
    "service/store/predictions.py": {"PREDICT"},
    "service/store/runs.py": {"TRAIN"},
}


def compared_kinds(tree: ast.AST) -> set[str]:
    """Return the kinds that a module compares with, or looks up, by constant or by name."""
    kinds = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
            case ast.Dict():
                operands = [key for key in node.keys if key is not None]
            case ast.MatchValue():
                operands = [node.value]
            case ast.Call(func=ast.Attribute(attr="in_")):
                operands = node.args
            case _:
                continue
        parts = [part for operand in operands for part in ast.walk(operand)]
        kinds |= {name for part in parts if (name := member(part))}
        if any(isinstance(part, ast.Attribute) and part.attr == "kind" for part in operands):
            kinds |= {
                part.value.upper()
                for part in parts
                if isinstance(part, ast.Constant) and part.value in KINDS
            }
    return kinds


def member(node: ast.AST) -> str | None:
    """Return the constant of the registry that `node` stands for: MERGE of job_kinds.MERGE.name."""
    match node:
        case ast.Attribute(attr="name", value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name if name in MEMBERS else None
        case _:
            return None


def test_no_module_but_the_registry_compares_kinds():
    found = {}
    for package in ("service", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if kinds := compared_kinds(ast.parse(path.read_text())):
                found[name] = kinds
    assert found == QUERIES


@pytest.mark.parametrize(
    "source",
    [
        "if job.kind == MERGE.name: pass",
        "if job.kind == 'merge': pass",
        "if job.kind in (job_kinds.MERGE.name, 'x'): pass",
        "label = {MERGE.name: 'merge'}[job.kind]",
        "match job.kind:\n    case job_kinds.MERGE.name:\n        pass",
        "select(Job).where(col(Job.kind).in_([MERGE.name]))",
    ],
)
def test_a_comparison_with_a_kind_is_detected(source):
    assert compared_kinds(ast.parse(source)) == {"MERGE"}


def test_ids_of_results_and_of_jobs_are_each_others_inverse():
    ids = {kind.name: kind.result_id("job_01a") for kind in KINDS.values()}
    assert ids == {
        "train": "job_01a",
        "evaluate": "eval_01a",
        "merge": "merge_01a",
        "predict": "pred_01a",
    }
    assert all(job_kind(name).job_id(result) == "job_01a" for name, result in ids.items())
