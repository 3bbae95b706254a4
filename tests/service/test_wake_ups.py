"""Wake-ups for jobs that wait: sent again where one was lost, ever less often if nobody comes."""

import pytest
from sqlalchemy import update
from sqlmodel import col

from service.domain.errors import Unavailable
from service.domain.job_kinds import PREDICT, TRAIN
from service.domain.states import FailureReason
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.store import jobs
from service.store.database import db_now
from service.store.runs import get_run
from service.store.tables import Job
from tests.support.fake_worker import Worker
from tests.support.installation import Service, wait_until
from tests.support.trained_runs import finish, leave_adapter
from worker import tasks


def train_job(context, run_id):
    with context.database.read() as session:
        return get_run(session, run_id)[1].id


@pytest.fixture
def job_id(context, run_id) -> str:
    return train_job(context, run_id)


def put(context, job_id, **values):
    with context.database.write() as session:
        session.execute(update(Job).where(col(Job.id) == job_id).values(**values))


def resent(context, job_id):
    with context.database.read() as session:
        return jobs.get(session, job_id).resent


def overdue(context):
    with context.database.write() as session:
        return jobs.unclaimed(session, older_than=30)


def sweep(context, *, idle=0.0, **settings):
    """One round of the sweep of a process that has waited for a job for so long."""
    given = context.settings.model_copy(update={"sweep_seconds": 10.0} | settings)
    made = Sweeper(
        given, context.database, context.store, context.celery, idle_seconds=lambda: idle
    )
    made.sweep()


def messages(context):
    """The queues of the messages that lie in the broker, which are taken away."""
    folder = celery_app.folder_of(context.settings) / "messages"
    found = sorted(path.name.split(".")[-2] for path in folder.glob("*.msg"))
    for path in folder.glob("*.msg"):
        path.unlink()
    return found


@pytest.fixture
def waiting(context, client, run_id):
    """A training and a prediction that wait, by kind; their messages are lost."""
    first = Worker(context, run_id)
    leave_adapter(first)
    finish(first)
    asked = client.post(f"/v1/runs/{run_id}/predictions", json={"texts": ["a"]}).json()
    dataset = client.get(f"/v1/runs/{run_id}").json()["spec"]["dataset_id"]
    body = {"dataset_id": dataset, "preset": "quick_test", "base_model": "tiny"}
    run = client.post("/v1/runs", json=body).json()
    messages(context)
    return {TRAIN.name: train_job(context, run["id"]), PREDICT.name: asked["job_id"]}


def test_the_wait_before_each_doubles_up_to_ten_minutes(context, job_id):
    waits = [30, 60, 120, 240, 480, 600, 600, 600]
    for number, wait in enumerate(waits):
        put(context, job_id, enqueued_at=db_now(-wait + 10))
        assert overdue(context) == []
        put(context, job_id, enqueued_at=db_now(-wait - 10))
        assert overdue(context) == [job_id]
        assert overdue(context) == []
        assert resent(context, job_id) == number + 1


def test_a_job_that_comes_back_is_woken_for_as_soon_as_at_first(context, job_id, run_id):
    put(context, job_id, resent=9)
    worker = Worker(context, run_id)
    with context.database.write() as session:
        job, told = jobs.get(session, job_id), FailureReason.CRASHED
        jobs.give_back(session, job, worker.current.token, told, "", free=False)
    assert resent(context, job_id) == 0
    assert overdue(context) == [job_id]  # never woken for
    assert resent(context, job_id) == 0
    put(context, job_id, enqueued_at=db_now(-40))
    assert overdue(context) == [job_id]


def test_after_an_outage_of_the_broker_the_wait_is_short_again(context, job_id, monkeypatch):
    def away(*_):
        raise Unavailable("away")

    put(context, job_id, resent=9, enqueued_at=db_now(-4000))
    with monkeypatch.context() as patch:
        patch.setattr(celery_app, "enqueue", away)
        sweep(context)
    messages(context)
    sweep(context)
    assert messages(context) == ["jobs"]
    put(context, job_id, enqueued_at=db_now(-40))
    sweep(context)
    assert messages(context) == ["jobs"]


@pytest.mark.parametrize(
    ("idle", "queues", "sent"),
    [
        (31, ["jobs", "predictions"], ["jobs", "predictions"]),
        (31, ["predictions"], ["predictions"]),
        (29, ["jobs", "predictions"], []),
        (0, ["jobs", "predictions"], []),
    ],
)
def test_a_worker_that_waits_in_vain_has_what_was_lost_sent_at_once(
    context, waiting, idle, queues, sent
):
    for job_id in waiting.values():
        put(context, job_id, resent=9, enqueued_at=db_now(-40))
    sweep(context, idle=idle, queues=queues)
    assert messages(context) == sent


def test_a_job_of_a_queue_that_a_worker_does_not_take_is_left_to_others(
    context, waiting, monkeypatch
):
    taken = []
    monkeypatch.setattr(tasks, "Supervisor", lambda *given: taken.append(given[3].kind) or _Done())
    monkeypatch.setattr(tasks, "Database", lambda _: context.database)
    for queues, kinds in ((["jobs"], [TRAIN.name]), (["predictions"], [PREDICT.name])):
        settings = context.settings.model_copy(update={"queues": queues})
        execute = tasks.make_worker(settings).tasks[celery_app.EXECUTE]
        for job_id in waiting.values():
            execute(job_id)
        assert taken == kinds
        taken.clear()


class _Done:
    def run(self):
        return False


def test_a_worker_finds_what_was_lost_long_ago_and_takes_its_own_alone(
    context, settings, waiting, tmp_path
):
    for job_id in waiting.values():
        put(context, job_id, resent=9)
    celery_app.enqueue(
        context.celery, waiting[PREDICT.name], celery_app.QUEUE
    )  # to the wrong queue

    def status(kind):
        with context.database.read() as session:
            return jobs.get(session, waiting[kind]).status

    service = Service(settings, tmp_path / "worker.log")
    try:
        service.start("worker", FAIRTUNE_SWEEP_SECONDS="0.2", FAIRTUNE_QUEUES="jobs")
        wait_until(lambda: status(TRAIN.name) != "queued", seconds=50)
    finally:
        service.stop()
    passed_over = [line for line in service.log.read_text().splitlines() if "not claimed" in line]
    assert any(waiting[PREDICT.name] in line for line in passed_over)
    assert status(PREDICT.name) == "queued"
