"""One run trained by two processes: the same result, and one end for both of them."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from service.domain.job import Job
from tests.support.train_jobs import (
    board_scalars,
    environment,
    events,
    make_job,
    of_type,
    read_json,
    rows,
    run,
    spec,
)
from worker.runtime.distributed import World, join
from worker.runtime.out_of_memory import BatchTooLarge
from worker.runtime.ranks import (
    RankGroup,
    clear_launcher_environment,
    decode_failure,
    encode_failure,
)
from worker.supervision.program_process import ProgramProcess
from worker.training import checkpoints

pytestmark = pytest.mark.extended

ROWS = rows(25, 5, 11)
"""8 rows a step: the last of an epoch has one, which one process trains on; 3 passes validate."""

DRIVER = """
import os, signal, sys, time
from worker.programs import train
from worker.runtime import imports
from worker.runtime.launch import launch

RANK = max([int(one[7:]) for one in sys.argv if one.startswith("--rank=")], default=0)
load = imports.load


def loaded(*arguments, **more):
    load(*arguments, **more)
    import torch
    from worker.training import loop

    def at(step, do):
        # At the beginning of that step.
        make = loop.Trainer._step

        def stepping(trainer):
            if trainer.state.step == step - 1:
                do(trainer)
            return make(trainer)

        loop.Trainer._step = stepping

    def hold(trainer):
        (trainer.directory / f"held-{RANK}").touch()
        while not (trainer.directory / "go").exists():
            time.sleep(0.005)

    HARM


imports.load = loaded
launch(train.main, "a run with something that happens to it")
"""


def two_processes(changes=None, **more):
    """The specification of a run with 2 x 2 x 2 rows a step, in two processes.

    Padded: packs are cut for the processes there are, and dropout draws a mask for each pack.
    """
    training = {"per_device_eval_batch_size": 2, "packing": "none"} | (changes or {})
    return spec(training=training, resources={"num_processes": 2}, **more)


def one_process(changes=None, **more):
    """The same in one process."""
    fields = {"gradient_accumulation_steps": 4, "per_device_eval_batch_size": 2, "packing": "none"}
    return spec(training=fields | (changes or {}), **more)


def finish(directory, models, run_spec, **fields):
    job = make_job(directory, models, run_spec, ROWS, **fields)
    status, emitted = run(job)
    assert status == EXIT_DONE, (job / "training.log").read_text()
    return job, emitted


@contextlib.contextmanager
def harmed(job, harm):
    """The program with `harm` in each of its processes, which may look at RANK."""
    source = DRIVER.replace("HARM", harm)
    with subprocess.Popen(
        [sys.executable, "-c", source, str(job)],
        cwd=job,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def wait_until(true, job, ended=lambda: None):
    until = time.monotonic() + 120
    while not (value := true()):
        assert ended() is None, (job / "training.log").read_text()
        assert time.monotonic() < until, (job / "training.log").read_text()
        time.sleep(0.005)
    return value


def processes(pid, job):
    """A pidfd of each process of the run, the first one first."""

    def both():
        with contextlib.suppress(psutil.NoSuchProcess):
            children = [
                child
                for child in psutil.Process(pid).children()
                if "--rank=1" in str(child.cmdline())
            ]
            return children if len(children) == 1 else None

    (child,) = wait_until(both, job)
    return [os.pidfd_open(pid), os.pidfd_open(child.pid)]


def gone(watched, seconds=10.0):
    """Whether all of them end within that time."""
    until = time.monotonic() + seconds
    left = set(watched)
    while left and (seconds_left := until - time.monotonic()) > 0:
        left -= set(select.select(list(left), [], [], seconds_left)[0])
    return not left


def values(emitted, *names):
    return {
        (event.step, name): value
        for event in of_type(emitted, "metrics")
        for name, value in event.values.items()
        if name in names
    }


LEARNED = ("loss", "eval_loss", "grad_norm", "learning_rate")


@pytest.fixture(scope="module")
def whole(models_dir, tmp_path_factory):
    """A run in two processes that nobody disturbs, with dropout: directory and events."""
    return finish(tmp_path_factory.mktemp("whole") / "job", models_dir, two_processes())


@pytest.fixture(scope="module")
def alone(models_dir, tmp_path_factory):
    """The same in one process."""
    return finish(tmp_path_factory.mktemp("alone") / "job", models_dir, one_process())


def assert_alike(many, single):
    """The same run to 1e-5: weights, metrics, scores; and the same said about it."""
    (job, emitted), (reference_job, expected) = many, single
    actual, reference = (
        load_file(path / "adapter_model.safetensors") for path in (job, reference_job)
    )
    assert actual.keys() == reference.keys()
    for name, tensor in reference.items():
        assert torch.allclose(actual[name], tensor, rtol=1e-5, atol=1e-5), name
    assert values(emitted, *LEARNED) == pytest.approx(values(expected, *LEARNED), rel=1e-5)
    for target in ("base", "adapter"):
        file = f"evaluations/{target}-test.parquet"
        mine, theirs = (pq.read_table(path / file).to_pydict() for path in (job, reference_job))
        assert mine["id"] == theirs["id"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-5)
    assert [event.type for event in emitted] == [event.type for event in expected]
    assert [event.seq for event in emitted] == list(range(1, len(emitted) + 1))


def test_two_processes_are_one_with_twice_the_accumulation(whole, alone):
    """Dropout included: a micro-batch draws by its number in the step, whoever has it."""
    assert_alike(whole, alone)
    job, emitted = whole
    assert {event.total_steps for event in of_type(emitted, "progress")} == {8}
    assert "| effective batch | 8 rows |" in (job / "README.md").read_text()
    losses = [step for step, _ in board_scalars(job / "tensorboard")]
    assert losses == [2, 4, 6, 8]
    assert len(list((job / "tensorboard").iterdir())) == 1
    log = (job / "training.log").read_text()
    assert log.count("program started") == 2
    assert log.count("part=train-1 ") >= 3
    assert not [path for path in job.rglob("*") if path.name.startswith(".")]


def test_so_are_three_on_another_model_some_of_which_have_nothing_to_do(models_dir, tmp_path):
    """6 rows a step in three micro-batches; an epoch's last has one, and two passes validate."""
    changes = {"gradient_accumulation_steps": 1, "num_train_epochs": 1, "train_on": "all"}
    changes |= {"gradient_checkpointing": True, "per_device_eval_batch_size": 4}
    same = {"base_model": "tiny-qwen3", "lora": {"lora_dropout": 0.0}}
    three = spec(training=changes, resources={"num_processes": 3}, **same)
    single = spec(training=changes | {"gradient_accumulation_steps": 3}, **same)
    many = finish(tmp_path / "three", models_dir, three)
    assert_alike(many, finish(tmp_path / "one", models_dir, single))


def test_two_processes_choose_what_one_chooses(models_dir, tmp_path):
    """By F1 at a threshold fitted on validation, of which each of them scores a share."""
    results = {}
    for make in (one_process, two_processes):
        run_spec = make(
            {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2},
            fairness={
                "select": "best_f1_within_caps",
                "caps": [{"group": "mexican", "metric": "fnr", "max": 0.4}],
            },
            evaluation={"threshold": "fitted"},
        )
        job, said = finish(tmp_path / make.__name__, models_dir, run_spec)
        path = job / "checkpoints/checkpoint-8"
        results[make] = (job, checkpoints.read(path).state, said)
    (single, state, said), (many, state_of_two, also) = results.values()
    assert state_of_two.best_step == state.best_step is not None
    assert state_of_two.best_standing.rates == state.best_standing.rates
    names = ("eval_f1", "eval_accuracy", "eval_fnr/mexican", "eval_threshold", "eval_feasible")
    assert len(values(said, *names)) == 4 * len(names)
    assert values(also, *names) == pytest.approx(values(said, *names), abs=1e-5)
    actual, reference = (load_file(path / "adapter_model.safetensors") for path in (many, single))
    for name, tensor in reference.items():
        assert torch.allclose(actual[name], tensor, rtol=1e-5, atol=1e-5), name


# -- stopping and going on -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(models_dir, tmp_path_factory):
    """TERM came to the second process in the 6th step, in mid-epoch: directory and events."""
    job = make_job(tmp_path_factory.mktemp("stopped") / "job", models_dir, two_processes(), ROWS)
    with harmed(job, "at(6, hold)") as program:
        wait_until((job / "held-0").exists, job, program.poll)
        watched = processes(program.pid, job)
        # It hands it on to the first one, whose own signals are tested with one process.
        signal.pidfd_send_signal(watched[1], signal.SIGTERM)
        wait_until(lambda: _has_caught_term(program.pid), job, program.poll)
        (job / "go").touch()
        assert program.wait(timeout=30) == EXIT_STOPPED
        assert gone(watched)
    return job, events(job)


def _has_caught_term(pid):
    """Whether no TERM waits to be caught any more by that process, nor by its child."""
    states = [psutil.Process(pid), *psutil.Process(pid).children()]
    bit = 1 << (signal.SIGTERM - 1)
    for one_of_them in states:
        status = Path(f"/proc/{one_of_them.pid}/status").read_text().splitlines()
        lines = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        if (int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)) & bit:
            return False
    return True


def resume_in(directory, source, models, run_spec, path):
    """Another job directory that resumes from that checkpoint."""
    shutil.copytree(source / path, directory / path)
    shutil.copytree(source / "evaluations", directory / "evaluations")
    return finish(directory, models, run_spec, token=2, resume_from=path)


def test_stopped_in_mid_epoch_it_goes_on_to_the_same_weights(models_dir, tmp_path, whole, stopped):
    first, emitted = stopped
    last = of_type(emitted, "checkpoint")[-1]
    assert emitted[-1] == last
    assert last.step == 6
    again, later_events = resume_in(tmp_path / "job", first, models_dir, two_processes(), last.path)
    expected = load_file(whole[0] / "adapter_model.safetensors")
    actual = load_file(again / "adapter_model.safetensors")
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert values(emitted, *LEARNED) | values(later_events, *LEARNED) == values(whole[1], *LEARNED)
    assert [event.target for event in of_type(later_events, "evaluation")] == ["adapter"] * 2


def test_a_checkpoint_of_two_processes_is_gone_on_from_by_one(models_dir, tmp_path, alone, stopped):
    first, emitted = stopped
    last = of_type(emitted, "checkpoint")[-1]
    again, _ = resume_in(tmp_path / "job", first, models_dir, one_process(), last.path)
    _assert_same_end(again, alone[0])


def test_a_checkpoint_of_one_process_is_gone_on_from_by_two(models_dir, tmp_path, whole, alone):
    again, _ = resume_in(
        tmp_path / "job", alone[0], models_dir, two_processes(), "checkpoints/checkpoint-4"
    )
    _assert_same_end(again, whole[0])


def _assert_same_end(job, reference_job):
    actual, reference = (
        load_file(path / "adapter_model.safetensors") for path in (job, reference_job)
    )
    for name, tensor in reference.items():
        assert torch.allclose(actual[name], tensor, rtol=1e-5, atol=1e-5), name
    states = [read_json(path / "trainer_state.json") for path in (job, reference_job)]
    assert states[0]["best_global_step"] == states[1]["best_global_step"]


# -- one of them fails -----------------------------------------------------------------------------


def failure_of(job, harm):
    """What the run says last where this happens to it; nothing of it is left then."""
    with harmed(job, harm) as program:
        watched = processes(program.pid, job)
        assert program.wait(timeout=120) == EXIT_FAILED, (job / "training.log").read_text()
        assert gone(watched)
    emitted = events(job)
    assert [event.seq for event in of_type(emitted, "failure")] == [emitted[-1].seq]
    return emitted[-1]


TOO_LARGE = """
    from worker.training.padded import Padded
    loss_sum = Padded.loss_sum
    def limited(self, micro):
        if RANK == 1 and len(micro) > 1 and torch.is_grad_enabled():
            torch.empty(1 << 60, dtype=torch.uint8)
        return loss_sum(self, micro)
    Padded.loss_sum = limited
"""


def test_memory_that_lacks_in_the_second_process_halves_the_batch_of_both(
    models_dir, tmp_path, alone
):
    job = make_job(tmp_path, models_dir, two_processes(lora={"lora_dropout": 0.0}), ROWS)
    failure = failure_of(job, TOO_LARGE)
    assert (failure.reason, failure.batch) == ("out_of_memory", "train")
    assert "training with 2 rows per forward pass" in failure.detail

    # What the supervisor does then, in the same directory.
    smaller = Job.read(job).model_copy(update={"train_batch_size": 1})
    (job / "job.json").write_text(smaller.model_dump_json())
    with harmed(job, TOO_LARGE) as program:
        assert program.wait(timeout=120) == EXIT_DONE, (job / "training.log").read_text()
    emitted = events(job)
    assert [event.step for event in of_type(emitted, "rewound")] == [0]
    assert {event.total_steps for event in of_type(emitted, "progress")} == {8}
    assert of_type(emitted, "metrics")[-1].step == 8


@pytest.mark.parametrize("rank", [0, 1])
def test_what_nobody_foresaw_in_one_process_ends_both_with_its_words(models_dir, tmp_path, rank):
    job = make_job(tmp_path, models_dir, two_processes(), ROWS)
    failure = failure_of(
        job,
        f"""
    from worker.runtime import ranks
    ranks.ROOT_CAUSE_SECONDS = 0.5
    def fail(trainer):
        raise LookupError("something is odd")
    if RANK == {rank}:
        at(2, fail)
""",
    )
    assert failure.reason == "internal"
    assert "LookupError: something is odd" in failure.detail


def test_divergence_is_seen_by_both_and_said_once(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, two_processes(), ROWS)
    failure = failure_of(
        job,
        """
    def poison(trainer):
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient * float("inf"))
                break
    if RANK == 1:
        at(3, poison)
""",
    )
    assert failure.reason == "diverged"
    assert "Step 3: loss " in failure.detail
    assert "loss nan" not in failure.detail


def test_processes_that_begin_with_other_weights_do_not_train(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, two_processes(), ROWS)
    failure = failure_of(
        job,
        """
    run = loop.Trainer.run
    def differing(trainer):
        with torch.no_grad():
            next(p for p in trainer.model.parameters() if p.requires_grad)[0, 0] += 1e-6
        run(trainer)
    if RANK == 1:
        loop.Trainer.run = differing
""",
    )
    assert failure.reason == "crashed"
    assert failure.detail == (
        "The weights of rank 1 (of 2 processes) differ from those of rank 0 at step 0."
    )


def test_a_process_that_is_killed_takes_the_run_with_it(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, two_processes(), ROWS)
    with harmed(job, "if RANK == 1: at(5, hold)") as program:
        wait_until((job / "held-1").exists, job, program.poll)
        # The first process saves while the second one is a step ahead.
        wait_until(lambda: of_type(events(job), "checkpoint"), job, program.poll)
        watched = processes(program.pid, job)
        signal.pidfd_send_signal(watched[1], signal.SIGKILL)
        # To the supervisor a crash, and one that may have been the kernel's, for memory.
        assert program.wait(timeout=30) == -signal.SIGKILL
        assert gone(watched)
    emitted = events(job)
    assert of_type(emitted, "failure") == []
    assert [event.step for event in of_type(emitted, "checkpoint")] == [4]
    last = (job / "training.log").read_text().splitlines()[-1]
    assert "rank 1 of 2 ended with signal 9" in last


def test_a_lost_connection_is_not_the_reason_where_a_death_is(models_dir, tmp_path):
    """A process that holds much takes a while to die, and its connections are closed early."""
    job = make_job(tmp_path, models_dir, two_processes(), ROWS)
    slow_death = """
    def die(trainer):
        torch.distributed.destroy_process_group()
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    if RANK == 1:
        at(5, die)
"""
    with harmed(job, slow_death) as program:
        assert program.wait(timeout=120) == -signal.SIGKILL, (job / "training.log").read_text()
    assert of_type(events(job), "failure") == []


# -- who outlives whom -----------------------------------------------------------------------------


def test_the_second_process_dies_with_the_first_even_where_it_stands_still(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, two_processes(), ROWS)
    with harmed(job, "if RANK == 1: at(3, hold)") as program:
        wait_until((job / "held-1").exists, job, program.poll)
        watched = processes(program.pid, job)
        signal.pidfd_send_signal(watched[1], signal.SIGSTOP)
        program.kill()
        assert gone(watched)


LONG = {"num_train_epochs": 500, "eval_strategy": "no", "load_best_model_at_end": False}


def reached(job, step):
    path = job / "events.jsonl"
    return path.exists() and f'"step":{step},' in path.read_text()


def test_both_die_with_their_supervisor(models_dir, tmp_path):
    job = make_job(tmp_path, models_dir, two_processes(LONG), ROWS)
    supervisor = f"""
import pathlib
from worker.supervision.program_process import Child
child = Child("worker.programs.train", pathlib.Path({str(job)!r}), 60, "console")
print(child._process.pid, flush=True)
child.wait(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", supervisor], env=environment(), stdout=subprocess.PIPE
    ) as parent:
        pid = int(parent.stdout.readline())
        watched = processes(pid, job)
        wait_until(lambda: reached(job, 3), job, parent.poll)
        parent.kill()
        assert gone(watched)


def test_where_one_hangs_all_are_killed_and_the_others_say_where_they_stood(
    models_dir, tmp_path, monkeypatch
):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    job = make_job(tmp_path, models_dir, two_processes(LONG), ROWS)
    with ProgramProcess("worker.programs.train", job, 60, "console") as child:
        wait_until(lambda: reached(job, 3), job, child.status)
        watched = processes(child._process.pid, job)
        signal.pidfd_send_signal(watched[0], signal.SIGSTOP)
        child.dump_stacks()
        sent, kill = [], os.killpg
        monkeypatch.setattr(os, "killpg", lambda *given: sent.append(given[1]) or kill(*given))
        assert child.kill() == -signal.SIGKILL
        # Not only sent for: what they held on a GPU must be free before the next start.
        assert sent[-1] == 0
        with pytest.raises(ProcessLookupError):
            kill(child._process.pid, 0)
        assert gone(watched, 0.01)
    assert "worker/training/loop.py" in (job / "training.log").read_text()


# -- the parts -------------------------------------------------------------------------------------


def test_all_shares_together_are_the_whole():
    shares = [World(number, 3).share("abcdefgh") for number in range(3)]
    assert shares[1] == [(1, "b"), (4, "e"), (7, "h")]
    assert sorted(one_of for share in shares for one_of in share) == list(enumerate("abcdefgh"))
    assert World().share("ab") == [(0, "a"), (1, "b")]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    ranks = RankGroup()
    ranks.size = 2
    with pytest.raises(ProgramFailure) as refused:
        join(ranks, 2)
    assert refused.value.reason == "invalid_spec"
    assert refused.value.detail.startswith("resources.num_processes is 2")
    assert refused.value.detail.endswith("machine has 1.")


def test_one_process_where_two_were_asked_for_is_no_silent_success():
    with pytest.raises(ProgramFailure, match=r"num_processes is 2, but processes .* together: 1"):
        join(RankGroup(), 2)


def test_a_launcher_around_the_worker_does_not_decide_who_trains(monkeypatch):
    from accelerate import PartialState

    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    clear_launcher_environment()
    assert PartialState._prepare_backend(SimpleNamespace(), cpu=True)[0] is None


def test_a_failure_comes_over_the_pipe_as_it_was():
    plain = decode_failure(encode_failure(ProgramFailure("diverged", "a\nb")))
    assert (plain.reason, plain.detail) == ("diverged", "a\nb")
    large = decode_failure(encode_failure(BatchTooLarge("eval", "too large")))
    assert (large.batch, large.reason) == ("eval", "out_of_memory")
