"""Job directories on tiny models, and the programs as child processes."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from service.domain.events import ProgramEvent, program_event
from service.domain.job import Job
from service.domain.spec import RunSpec
from service.domain.template import Template

ROOT = Path(__file__).parents[2]

TEMPLATE = Template(
    name="tiny",
    description="for tests",
    system="Say whether the text is hateful.",
    user='Text: "$text"',
    completion='{"classification": "$label"}',
    labels={"hate": "hate_speech", "normal": "not_hate"},
)

WORDS = [
    "people",
    "like",
    "that",
    "next",
    "door",
    "left",
    "soup",
    "for",
    "us",
    "they",
    "have",
    "done",
    "so",
    "much",
    "good",
    "bad",
    "never",
    "always",
    "neighbours",
    "work",
    "sing",
    "help",
    "stay",
    "leave",
    "home",
    "town",
    "church",
    "market",
    "morning",
    "evening",
]


def sentence(number: int, length: int = 8) -> str:
    """A sentence that depends on its number alone."""
    return " ".join(
        WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(length)
    )


def rows(train: int = 24, validation: int = 8, test: int = 12) -> list[dict[str, Any]]:
    """Canonical rows; 'hate' if the sentence contains 'never'."""
    canonical = []
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        for number in range(count):
            hateful = number % 2 == 0
            text = sentence(number, 4 + number % 9) + (" never" if hateful else " help")
            canonical.append(
                {
                    "id": f"{split}-{number}",
                    "text": text,
                    "messages": None,
                    "label": "hate" if hateful else "normal",
                    "group": ("lgbtq", "mexican", None)[number % 3],
                    "source": "made",
                    "detail": None,
                    "rationale": None,
                    "split": split,
                }
            )
    return canonical


def write_rows(path: Path, dataset: list[dict[str, Any]]) -> None:
    """Write canonical rows as a dataset file."""
    names = ["id", "text", "messages", "label", "group", "source", "detail", "rationale", "split"]
    pq.write_table(
        pa.Table.from_pylist(dataset, pa.schema([(n, pa.string()) for n in names])), path
    )


def spec(**changes: Any) -> RunSpec:
    """A specification for the tiny Llama, float32 and unquantized unless changed."""
    fields: dict[str, Any] = {
        "dataset_id": "ds_1",
        "base_model": "tiny-llama",
        "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        "quantization": {"load_in_4bit": False},
        "training": {
            "learning_rate": 0.01,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "warmup_steps": 2,
            "max_seq_length": 128,
            "bf16": False,
            "gradient_checkpointing": False,
            "logging_steps": 2,
            "early_stopping_patience": 0,
        },
    }
    for section, values in changes.items():
        fields[section] = fields.get(section, {}) | values if isinstance(values, dict) else values
    return RunSpec.model_validate(fields)


def make_job(
    directory: Path,
    models: Path,
    run_spec: RunSpec,
    dataset: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Path:
    """Fill a job directory as the supervisor does."""
    directory.mkdir(parents=True, exist_ok=True)
    job = Job(
        **{
            "job_id": "job_1",
            "run_id": "run_1",
            "token": 1,
            "spec": run_spec,
            "template": TEMPLATE,
            "baseline_template": None,
            "models_dir": str(models),
        }
        | fields
    )
    (directory / "job.json").write_text(job.model_dump_json())
    write_rows(directory / "dataset.parquet", rows() if dataset is None else dataset)
    return directory


def token_examples(count: int = 8) -> list[Any]:
    """Tokenized rows of several lengths: equal at first, then random."""
    import torch

    from worker.data.tokenize import Example

    generator = torch.Generator().manual_seed(5)
    examples = []
    for number in range(count):
        length = 12 + 5 * number % 17
        ids = torch.randint(10, 400, (length,), generator=generator).tolist()
        ids[:5] = [7, 8, 9, 8, 7]
        examples.append(Example(ids, length - 2 - number % 3))
    return examples


def make_trainer(
    load: Any,
    directory: Path,
    run_spec: RunSpec,
    train: list[Any] | None = None,
    validation: Sequence[Any] = (),
    family: str = "llama",
    **fields: Any,
) -> Any:
    """Return a trainer in this process; `load(family)` returns its model and tokenizer."""
    from accelerate import Accelerator

    from worker.modeling.fused_layers import fuse_layers
    from worker.modeling.load import add_adapter
    from worker.runtime.disk_full import DiskSpace
    from worker.runtime.events import Reporter, StopSignal
    from worker.training.loop import Trainer

    model, _ = load(family)
    model.requires_grad_(requires_grad=False)
    model = add_adapter(model, run_spec.lora, run_spec.seed, "tiny")
    fuse_layers(model)
    if run_spec.training.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    directory.mkdir(exist_ok=True)
    reporter, stop = Reporter(directory / "events.jsonl"), StopSignal()
    return Trainer(
        **{
            "model": model,
            "accelerator": Accelerator(cpu=True),
            "examples": token_examples() if train is None else train,
            "validation": list(validation),
            "spec": run_spec,
            "pad": 0,
            "directory": directory,
            "reporter": reporter,
            "stop": stop,
            "space": DiskSpace(reporter, stop),
            "board": lambda _values, _step: None,
        }
        | fields
    )


def stop_at(trainer: Any, step: int) -> None:
    """Request a stop while the trainer computes that step."""
    make_step = trainer._step

    def stopping() -> Any:
        if trainer.state.step == step - 1:
            trainer.stop.requested = True
        return make_step()

    trainer._step = stopping


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def start(
    directory: Path, *arguments: str, program: str = "train", **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program as a child process; by default its standard input is closed."""
    return subprocess.Popen(
        [sys.executable, "-m", f"worker.programs.{program}", str(directory), *arguments],
        cwd=directory,
        env=environment(),
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL} | options,
    )


def run(directory: Path, program: str = "train") -> tuple[int, list[ProgramEvent]]:
    """Run a program to its end; return exit status and events."""
    started = start(directory, program=program)
    started.communicate(timeout=120)
    return started.returncode, events(directory)


def run_here(directory: Path, name: str = "train") -> tuple[int, list[ProgramEvent]]:
    """Run a program in this process, where the libraries are imported already."""
    from worker.runtime import imports
    from worker.runtime import launch as program
    from worker.runtime.events import StopSignal

    main = importlib.import_module(f"worker.programs.{name}").main
    with mock.patch.object(imports, "load"):
        status, _ = program._run(main, directory, StopSignal())
    return status, events(directory)


def events(directory: Path) -> list[ProgramEvent]:
    lines = (directory / "events.jsonl").read_text().splitlines()
    parsed = [program_event.validate_json(line) for line in lines]
    assert [event.seq for event in parsed] == list(range(1, len(parsed) + 1))
    return parsed


def of_type(program_events: list[ProgramEvent], kind: str) -> list[Any]:
    """Return the events of one type."""
    return [event for event in program_events if event.type == kind]


def board_scalars(directory: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    """Return (step, value) as TensorBoard reads them from all event files in the directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(directory))
    board.Reload()
    return [(value.step, value.value) for value in board.Scalars(tag)]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
