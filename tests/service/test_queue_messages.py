"""Queue messages: lost, doubled, late or needless ones only delay a job, and none pile up."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, update
from sqlmodel import col, select

from service.domain.errors import Unavailable
from service.domain.job_kinds import KINDS, queue_names
from service.domain.states import JobStatus
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.store import jobs
from service.store.database import Database, db_now
from service.store.runs import get_run
from service.store.tables import Job, Run
from tests.support.fake_worker import Worker
from tests.support.installation import Service, wait_until
from tests.support.trained_runs import finish, leave_adapter
from worker import tasks
from worker.supervision import job_loop

pytestmark = pytest.mark.both_databases


class Program:
    """A stand-in for the supervisor: notes the jobs, and ends each with `status`."""

    def __init__(self, context, monkeypatch, status=JobStatus.SUCCEEDED, is_free=False):
        self.context = context
        self.status = status
        self.is_free = is_free
        self.claims = []
        self.before_end = lambda: None
        monkeypatch.setattr(job_loop, "Supervisor", self._supervisor)

    def _supervisor(self, _settings, _database, _store, claim, _shutdown):
        self.claim = claim
        return self

    def run(self):
        claim = self.claim
        self.claims.append(claim)
        self.before_end()
        with self.context.database.write() as session:
            job = jobs.get(session, claim.job_id)
            jobs.switch_status(session, job, self.status)
        return self.is_free

    @property
    def job_ids(self):
        return [claim.job_id for claim in self.claims]


@pytest.fixture
def program(context, monkeypatch):
    return Program(context, monkeypatch)


def make_worker(context, monkeypatch, **settings):
    """The Celery task and the loop of a worker in this process."""
    monkeypatch.setattr(tasks, "Database", lambda _: context.database)
    app, loop = tasks.make_worker(context.settings.model_copy(update=settings))
    return app.tasks[celery_app.EXECUTE], loop


def train_job(context, run_id):
    with context.database.read() as session:
        return get_run(session, run_id)[1].id


def submit(context, client, dataset_id):
    body = {"dataset_id": dataset_id, "preset": "quick_test", "base_model": "tiny"}
    return train_job(context, client.post("/v1/runs", json=body).json()["id"])


def status_of(context, job_id):
    with context.database.read() as session:
        return jobs.get(session, job_id).status


def sweep(context):
    Sweeper(context.settings, context.database, context.store, context.celery).sweep()


def message_files(context):
    return sorted((celery_app.folder_of(context.settings) / "messages").glob("*.msg"))


def take_messages(context):
    """Remove the messages from the broker; return their queues."""
    paths = message_files(context)
    for path in paths:
        path.unlink()
    return sorted(path.name.split(".")[-2] for path in paths)


@pytest.fixture
def prediction(context, client, run_id):
    """A queued prediction of a finished run; its message is lost."""
    worker = Worker(context, run_id)
    leave_adapter(worker)
    finish(worker)
    created = client.post(f"/v1/runs/{run_id}/predictions", json={"texts": ["a"]}).json()
    take_messages(context)
    return created["job_id"]


# -- sending ---------------------------------------------------------------------------------------


def test_a_message_names_no_job(context, run_id):
    (path,) = message_files(context)
    assert train_job(context, run_id) not in path.read_text()


def test_a_lost_message_is_sent_again_by_the_sweep(context, run_id):
    assert take_messages(context) == ["jobs"]
    sweep(context)
    assert take_messages(context) == ["jobs"]


def test_the_sweep_sends_one_message_a_queue_not_one_a_job(context, client, dataset_id, prediction):
    for _ in range(3):
        submit(context, client, dataset_id)
    take_messages(context)
    sweep(context)
    assert take_messages(context) == ["jobs", "predictions"]


def test_the_sweep_sends_none_where_no_job_waits(context, run_id):
    take_messages(context)
    Worker(context, run_id)
    sweep(context)
    assert take_messages(context) == []


def test_messages_do_not_pile_up(context, client, dataset_id, run_id):
    """Nobody serves the queue for days."""
    for _ in range(3 * celery_app.MAX_MESSAGES):
        sweep(context)
    submit(context, client, dataset_id)
    assert len(take_messages(context)) == celery_app.MAX_MESSAGES
    sweep(context)
    assert take_messages(context) == ["jobs"]


def test_messages_do_not_pile_up_in_redis(context, redis_url):
    app = celery_app.make_app(context.settings.model_copy(update={"broker_url": redis_url}))
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        for queue in queue_names():
            channel.queue_purge(queue)
        for _ in range(2 * celery_app.MAX_MESSAGES):
            celery_app.notify(app, celery_app.QUEUE)
        celery_app.notify(app, "predictions")
        counts = [channel.queue_purge(queue) for queue in queue_names()]
    assert counts == [celery_app.MAX_MESSAGES, 1]


def test_a_broker_that_is_unreachable_loses_no_job(
    context, client, dataset_id, monkeypatch, program
):
    def unreachable(*_):
        raise Unavailable("the broker cannot be reached")

    monkeypatch.setattr(celery_app, "notify", unreachable)
    job_id = submit(context, client, dataset_id)
    sweep(context)
    assert message_files(context) == []
    _, loop = make_worker(context, monkeypatch)
    loop.work()
    assert program.job_ids == [job_id]


# -- receiving -------------------------------------------------------------------------------------


def test_one_message_suffices_for_all_jobs_the_oldest_first(
    context, client, dataset_id, run_id, program, monkeypatch
):
    job_ids = [train_job(context, run_id), *(submit(context, client, dataset_id) for _ in range(3))]
    with context.database.write() as session:
        again = update(Job).where(col(Job.id) == job_ids[0])
        session.execute(again.values(queued_at=db_now()))  # as after a pause
    execute, _ = make_worker(context, monkeypatch)
    execute()
    assert program.job_ids == [*job_ids[1:], job_ids[0]]


def test_a_doubled_or_late_message_finds_no_job(context, run_id, program, monkeypatch):
    execute, _ = make_worker(context, monkeypatch)
    for _ in range(3):
        execute()
    assert program.job_ids == [train_job(context, run_id)]


def test_a_message_of_the_version_before_is_understood(context, run_id, program, monkeypatch):
    execute, _ = make_worker(context, monkeypatch)
    execute("job_of_nobody")
    assert program.job_ids == [train_job(context, run_id)]


@pytest.mark.parametrize(("queues", "kind"), [(["jobs"], "train"), (["predictions"], "predict")])
def test_a_worker_leaves_jobs_of_other_queues_to_others(
    context, client, dataset_id, prediction, program, monkeypatch, queues, kind
):
    submit(context, client, dataset_id)
    execute, _ = make_worker(context, monkeypatch, queues=queues)
    execute()
    assert [claim.kind.name for claim in program.claims] == [kind]


def test_a_job_of_a_run_being_deleted_does_not_block_the_queue(
    context, client, dataset_id, run_id, program, monkeypatch
):
    behind = submit(context, client, dataset_id)
    with context.database.write() as session:
        hidden = update(Run).where(col(Run.id) == run_id)
        session.execute(hidden.values(deleted_at=db_now()))
    execute, _ = make_worker(context, monkeypatch)
    execute()
    assert program.job_ids == [behind]
    take_messages(context)
    sweep(context)
    assert take_messages(context) == []


def test_a_job_that_returned_after_a_failure_waits_for_the_next_look(
    context, client, dataset_id, run_id, monkeypatch
):
    """What broke may need a moment, and the attempts are few; messages do not shorten the pause."""
    program = Program(context, monkeypatch, JobStatus.QUEUED)
    execute, loop = make_worker(context, monkeypatch)
    pauses = []

    def pause(seconds):
        pauses.append((seconds, loop._lock.locked(), len(program.claims)))

    monkeypatch.setattr(loop._shutdown.requested, "wait", pause)
    take_messages(context)
    for _ in range(3):
        execute()
    assert pauses == [(job_loop.LOOK_SECONDS, True, count) for count in (1, 2, 3)]
    assert take_messages(context) == []


def test_a_job_of_an_unknown_kind_blocks_nothing_and_goes_with_its_run(
    context, client, dataset_id, run_id, prediction, program, monkeypatch
):
    """Its row may be a newer version's."""
    with context.database.write() as session:
        session.execute(update(Job).where(col(Job.id) == prediction).values(kind="newer"))
    behind = submit(context, client, dataset_id)
    execute, _ = make_worker(context, monkeypatch)
    execute()
    assert program.job_ids == [behind]
    assert client.get("/metrics").status_code == 200
    assert client.delete(f"/v1/runs/{run_id}").status_code == 204
    with context.database.read() as session:
        assert session.get(Job, prediction) is None


def test_other_workers_are_told_of_a_job_that_a_stopping_worker_returned(
    context, run_id, monkeypatch
):
    Program(context, monkeypatch, JobStatus.QUEUED, is_free=True)
    execute, _ = make_worker(context, monkeypatch)
    take_messages(context)
    execute()
    assert take_messages(context) == ["jobs"]


def test_a_worker_that_is_told_to_stop_takes_no_further_job(
    context, client, dataset_id, run_id, program, monkeypatch
):
    waiting = submit(context, client, dataset_id)
    execute, loop = make_worker(context, monkeypatch)
    program.before_end = loop._shutdown.request
    execute()
    execute()
    assert program.job_ids == [train_job(context, run_id)]
    assert status_of(context, waiting) == "queued"


def test_a_worker_works_on_one_job_at_a_time(
    context, client, dataset_id, run_id, program, monkeypatch
):
    """A message comes while the thread of the loop works, and the other way round."""
    second = submit(context, client, dataset_id)
    at_work, go_on = threading.Event(), threading.Event()

    def wait():
        at_work.set()
        assert go_on.wait(60)

    program.before_end = wait
    execute, loop = make_worker(context, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        loop.start()
        assert at_work.wait(60)
        message = pool.submit(execute)
        time.sleep(0.3)  # long enough to claim; passes on any machine where the lock holds
        assert status_of(context, second) == "queued"
        assert not message.done()
        go_on.set()
        message.result(60)
    loop.stop()
    assert program.job_ids == [train_job(context, run_id), second]


# -- two workers -----------------------------------------------------------------------------------


def test_two_workers_claim_two_jobs_at_once(context, client, dataset_id, run_id, database_url):
    """Both have seen the same oldest job; on SQLite the second waits for the first's commit."""
    job_ids = [train_job(context, run_id), submit(context, client, dataset_id)]
    other = Database(database_url)
    looks = threading.Barrier(2, timeout=10)

    def claim(database):
        with database.write() as session:
            claimed = jobs.claim_next(session, "a worker", 60, KINDS)
            if not other.is_sqlite:
                looks.wait()  # neither has committed
        return claimed.job_id

    try:
        with ThreadPoolExecutor(2) as pool:
            claims = [pool.submit(claim, database) for database in (context.database, other)]
            assert sorted(claim.result(60) for claim in claims) == sorted(job_ids)
    finally:
        other.dispose()


def test_one_job_is_claimed_by_one_of_two_workers(context, run_id):
    with context.database.write() as session:
        assert jobs.claim_next(session, "one", 60, KINDS) is not None
    with context.database.write() as session:
        assert jobs.claim_next(session, "another", 60, KINDS) is None


def test_an_idle_worker_takes_no_write_lock(context, monkeypatch):
    """On SQLite that would be one for the whole database, every few seconds."""
    statements = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(context.database.engine, "before_cursor_execute", note)
    _, loop = make_worker(context, monkeypatch)
    loop.work()
    event.remove(context.database.engine, "before_cursor_execute", note)
    assert any("FROM job" in statement for statement in statements)
    assert not any("IMMEDIATE" in one or "FOR UPDATE" in one for one in statements)


# -- a worker process ------------------------------------------------------------------------------


def test_an_idle_worker_finds_a_job_with_no_message_and_no_broker(
    context, settings, run_id, tmp_path
):
    """And it stops as it is told to: the job that it took on its own is back in the queue."""
    with context.database.write() as session:
        job = session.exec(select(Job)).one()
        jobs.switch_status(session, job, JobStatus.PAUSED)
    take_messages(context)
    service = Service(settings, tmp_path / "worker.log")
    try:
        process = service.start("worker")
        ready = settings.data_dir / "worker.alive"
        wait_until(ready.exists, 50)
        broker = celery_app.folder_of(settings)
        broker.rename(broker.with_name("away"))
        with context.database.write() as session:
            jobs.switch_status(session, jobs.get(session, job.id), JobStatus.QUEUED)
        wait_until(lambda: status_of(context, job.id) != "queued", 50)
        process.terminate()
        assert process.wait(30) == 0
        assert status_of(context, job.id) != "running"
    finally:
        service.stop()
