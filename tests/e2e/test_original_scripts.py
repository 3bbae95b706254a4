"""The original scripts' calls, as subprocesses, against a real API and worker."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairtune import Client
from service.cli.temporary_server import free_port
from service.settings import Settings
from service.store import migrate
from service.store.database import Database
from tests.support.installation import Service, wait_until
from tests.support.tensorboard_files import scalars
from tests.support.tiny_runs import sample

CONFIG = {
    "model_name_or_path": "tiny-llama",
    "cache_dir": "./data/models",
    "load_in_4bit": False,
    "lora_r": 8,
    "lora_alpha": 8,
    "lora_target_modules": ["q_proj", "v_proj"],
    "num_train_epochs": 1,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 1,
    "logging_steps": 1,
    "save_total_limit": 3,
    "report_to": "tensorboard",
    "dataloader_num_workers": 4,
}


class Program(NamedTuple):
    """The command line, with the server's address in its environment."""

    url: str
    directory: Path

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli.main", *arguments],
            cwd=self.directory,
            env=os.environ | {"FAIRTUNE_URL": self.url, "HF_HUB_OFFLINE": "1"} | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(timeout=240)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def chats(rows: bytes) -> bytes:
    """Rows as the original's generator writes them, with their labels beside."""
    lines = []
    for line in rows.splitlines():
        row = json.loads(line)
        answer = {"hate": "hate_speech", "normal": "not_hate"}[row["label"]]
        messages = [
            {"role": "system", "content": "Classify."},
            {"role": "user", "content": f'Text: "{row["text"]}"'},
            {"role": "assistant", "content": json.dumps({"classification": answer})},
        ]
        lines.append({"messages": messages, "label": row["label"], "group": row["group"]})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.fixture(scope="module")
def service(tmp_path_factory, tiny_models_dir) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("installation")
    settings = Settings(
        data_dir=directory / "data",
        models_dir=tiny_models_dir,
        port=free_port(),
        poll_seconds=0.1,
    )
    database = Database(settings.database_url)
    migrate.upgrade(database)
    database.dispose()
    running = Service(settings, directory / "service.log")
    try:
        running.start("api")
        running.start("worker")
        yield running.ready()
    finally:
        running.stop()
        shutil.rmtree(settings.jobs_dir, ignore_errors=True)


@pytest.fixture(scope="module")
def program(service, tmp_path_factory) -> Program:
    directory = tmp_path_factory.mktemp("user")
    rows = sample(train=80, validation=30)
    for split in ("train", "validation"):
        (directory / f"{split}.jsonl").write_bytes(chats(rows[split]))
    config = CONFIG | {"train_file": "train.jsonl", "validation_file": "validation.jsonl"}
    (directory / "test.jsonl").write_bytes(rows["test"])
    (directory / "default.json").write_text(json.dumps(config))
    return Program(str(service.client.base_url), directory)


TRAIN = ("train", "--config_file", "default.json", "--lora-r=4", "--output_dir", "out")


@pytest.fixture(scope="module")
def trained(service, program) -> Path:
    """The output directory of a call that was interrupted, and of the same call again."""
    out = program.directory / "out"
    process = program.start(*TRAIN)

    def run() -> dict[str, Any]:
        return next(iter(service.client.get("/v1/runs").json()["data"]), {})

    wait_until(lambda: process.poll() is not None or "loss" in run().get("metrics", {}))
    # The training waits, so that it has not ended when the command is interrupted.
    training = service.programs()
    for part in training:
        part.suspend()
    try:
        log = out / "training.log"
        wait_until(lambda: process.poll() is not None or "'loss'" in log.read_text())
        assert run()["status"] == "running", process.communicate()
        assert scalars(out / "logs")["train/loss"]
        process.send_signal(signal.SIGINT)
        wait_until(lambda: run()["requested"] == "pause")
    finally:
        for part in training:
            part.resume()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "is paused. The same command continues it." in errors

    other = program.run(*TRAIN, "--lora_alpha", "16")
    assert other.returncode == 1
    assert "was started otherwise (lora.lora_alpha)" in other.stderr

    again = program.run(*TRAIN)
    assert again.returncode == 0, again.stderr
    assert "continues at step" in again.stderr
    assert "Bias report" in again.stdout
    return out


def test_train_leaves_what_the_script_left(trained, program):
    for name in (
        "adapter_config.json",
        "adapter_model.safetensors",
        "training_args.json",
        "trainer_state.json",
        "training.log",
        "all_results.json",
        "train_results.json",
        "eval_results.json",
        "report.json",
        "report.html",
    ):
        assert (trained / name).stat().st_size, name
    assert json.loads((trained / "adapter_config.json").read_text())["r"] == 4
    state = json.loads((trained / "trainer_state.json").read_text())
    assert (Path(program.directory) / state["best_model_checkpoint"]).is_dir()
    assert (trained / "checkpoint-40" / "adapter_model.safetensors").exists()
    with Client(program.url) as client:
        (run,) = client.runs.list()
        assert run.name == "out"
        assert run.spec.training.dataloader_num_workers == 0
        series = run.metric_series("loss", "eval_loss").series
        written = scalars(trained / "logs")
        for name, tag in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
            assert [step for step, _ in written[tag]] == [point.step for point in series[name]]
        log = (trained / "training.log").read_text()
        assert all(line in log for line in run.logs().splitlines())
        assert log.count("'loss'") == len(series["loss"])
        checkpoints = {f"checkpoint-{checkpoint.step}" for checkpoint in run.checkpoints()}
    assert {path.name for path in trained.glob("checkpoint-*")} == checkpoints


def test_bad_arguments_are_refused_at_once(program):
    refused = program.run(
        "train", "--lora_rr", "8", "--use_flash_attention", "--fp16", "--train_file", "absent"
    )
    assert refused.returncode == 2
    assert [line.partition(":")[0] for line in refused.stderr.splitlines()] == [
        "--lora_rr",
        "use_flash_attention",
        "fp16",
        "output_dir",
        "train_file",
    ]
    path = program.run(*TRAIN, "--model_name_or_path", "../no/model", "--output_dir", "other")
    assert path.returncode == 2
    assert "neither a directory" in path.stderr
    assert not (program.directory / "other").exists()


def test_a_model_directory_is_refused_by_a_running_server(program, tiny_models_dir):
    model = str(tiny_models_dir / "tiny-llama")
    refused = program.run(*TRAIN, "--model_name_or_path", model, "--output_dir", "third")
    assert refused.returncode == 1
    assert "--model_name_or_path tiny-llama" in refused.stderr


def test_errors_of_rows_name_the_file(program):
    (program.directory / "bad.jsonl").write_text('{"messages": []}\n')
    refused = program.run(*TRAIN, "--train_file", "bad.jsonl", "--output_dir", "fourth")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("train_file lines 1 messages: ")


EVALUATE = ("evaluate", "--data_file", "test.jsonl", "--prompt_template", "hate_speech_simple")
GUIDE = """awk -F',' 'NR==2 {print $5}' post_finetune/run_*/performance_metrics_*.csv | head -1"""


def test_the_guides_command_reads_the_f1_of_an_evaluated_directory(trained, program):
    options = ("--model_name", str(trained), "--max_samples", "20", "--use_accelerate", "--json")
    evaluated = program.run(
        *EVALUATE, *options, "--strategy", "baseline_standard", "--output_dir", "post_finetune"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Without effect here: strategy, use_accelerate." in evaluated.stderr
    report = json.loads(evaluated.stdout)
    shell = subprocess.run(
        GUIDE, shell=True, cwd=program.directory, capture_output=True, text=True, check=True
    )
    f1 = report["overall"]["tuned"]["f1"]["value"]
    assert shell.stdout.strip() == ("" if f1 is None else str(f1))
    counts = report["overall"]["tuned"]["confusion"]
    assert sum(counts.values()) == 20
    (folder,) = (program.directory / "post_finetune").iterdir()
    (bias,) = folder.glob("bias_metrics_*.csv")
    assert bias.read_text().startswith("strategy,persona_tag,sample_count,false_positive_rate,")
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".json", ".html", ".parquet"}

    again = program.run(*EVALUATE, "--model", str(trained), "--max-samples=5")
    assert again.returncode == 0, again.stderr
    assert "Bias report" in again.stdout
    with Client(program.url) as client:
        (adapter,) = client.adapters.list()  # the second call imported nothing
        assert adapter.base_model == "tiny-llama"
        assert client.adapters.get(adapter.id) == adapter
        assert client.runs.get(adapter.id).spec.quantization.load_in_4bit is False


@pytest.mark.extended
def test_runs_and_base_models_are_evaluated(trained, program):
    with Client(program.url) as client:
        run = next(run for run in client.runs.list() if run.name == trained.name)
        step = run.checkpoints()[0].step
    chat_file = ("--data", "validation.jsonl", "--max_samples", "6", "--json")
    checkpoint = program.run("evaluate", "--model", f"{run.id}@{step}", *chat_file)
    assert checkpoint.returncode == 0, checkpoint.stderr
    assert json.loads(checkpoint.stdout)["meta"]["run_id"] == run.id
    base = program.run(
        *EVALUATE, "--model", "tiny-llama", "--no_load_in_4bit", "--max_samples", "6", "--json"
    )
    assert base.returncode == 0, base.stderr
    counts = json.loads(base.stdout)["overall"]["tuned"]["confusion"]
    assert sum(counts.values()) == 6


@pytest.mark.extended
def test_merge_leaves_a_model_that_is_evaluated_without_a_running_server(
    trained, program, tmp_path
):
    merged = program.run(
        *("merge", "--base_model", "tiny-llama", "--adapter_path", str(trained)),
        *("--output_dir", "merged", "--device_map", "auto", "--dtype", "float32"),
    )
    assert merged.returncode == 0, merged.stderr
    assert "Without effect here: device_map." in merged.stderr
    model = program.directory / "merged"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in model.iterdir()
    }

    options = (*EVALUATE, "--model", str(model), "--no_load_in_4bit", "--max_samples", "6")
    refused = program.run(*options)
    assert refused.returncode == 1
    assert "--model merged" in refused.stderr
    alone = program.run(*options, FAIRTUNE_URL="", FAIRTUNE_DATA_DIR=str(tmp_path))
    assert alone.returncode == 0, alone.stderr
    assert "No server is running" in alone.stderr
    assert "Bias report" in alone.stdout


def test_what_cannot_be_evaluated_or_merged_is_named(program):
    pickle = program.directory / "pickle"
    pickle.mkdir()
    (pickle / "adapter_config.json").write_text("{}")
    (pickle / "adapter_model.bin").touch()
    for arguments, expected in (
        ((*EVALUATE, "--model", "pickle"), "adapter_model.bin is a pickle"),
        ((*EVALUATE, "--model", "../no/model"), "model: ../no/model is neither"),
        ((*EVALUATE, "--model", "tiny-llama", "--data", "unified"), "no file"),
        ((*EVALUATE, "--model", "x", "--template", "./a.json"), "files are not read"),
        (("merge", "--adapter_path", "x", "--output_dir", "m"), "adapter_path: x is neither"),
    ):
        refused = program.run(*arguments)
        assert refused.returncode in (1, 2)
        assert expected in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
