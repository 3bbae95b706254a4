"""Tiny random models of three families with a tokenizer trained here, and job directories."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is loaded: see worker.programs.program.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.domain.events import ProgramEvent, program_event
from service.domain.job import Job
from service.domain.spec import RunSpec
from service.domain.template import Template


def pytest_configure(config: pytest.Config) -> None:
    # peft 0.21 asks transformers 5.23 by a name that transformers gave up.
    config.addinivalue_line(
        "filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    )


ROOT = Path(__file__).parents[2]

FAMILIES = ("llama", "qwen3", "gpt_oss")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

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
    """Canonical rows; 'hate' where the sentence says never."""
    made = []
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        for number in range(count):
            hateful = number % 2 == 0
            text = sentence(number, 4 + number % 9) + (" never" if hateful else " help")
            made.append(
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
    return made


def write_rows(path: Path, made: list[dict[str, Any]]) -> None:
    names = ["id", "text", "messages", "label", "group", "source", "detail", "rationale", "split"]
    pq.write_table(pa.Table.from_pylist(made, pa.schema([(n, pa.string()) for n in names])), path)


def _tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [row["text"] for row in rows(60, 0, 0)]
    corpus += [TEMPLATE.user, str(TEMPLATE.system), 'system user assistant {"classification": "']
    corpus += ["hate_speech", "not_hate", '"}'] * 5
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)


def _config(family: str) -> Any:
    from transformers import GptOssConfig, LlamaConfig, Qwen3Config

    shape = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if family == "llama":
        return LlamaConfig(**shape)
    if family == "qwen3":
        return Qwen3Config(**shape)
    # A window far shorter than the rows, so that a wrong mask shows.
    return GptOssConfig(
        **shape,
        num_local_experts=2,
        num_experts_per_tok=1,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with tiny-llama, tiny-qwen3 and tiny-gpt_oss, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(_config(family))
        with torch.no_grad():
            for parameter in model.parameters():
                # The usual initial scale gives nearly uniform answers, which would hide faults.
                if parameter.dim() >= 2:
                    parameter.normal_(std=0.15)
        model.save_pretrained(directory / f"tiny-{family}")
        _tokenizer(directory / f"tiny-{family}")
    return directory


@pytest.fixture(scope="session")
def load(models_dir: Path) -> Callable[[str], tuple[Any, Any]]:
    """A fresh float32 model of a family, in evaluation mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def loaded(family: str) -> tuple[Any, Any]:
        directory = models_dir / f"tiny-{family}"
        model = AutoModelForCausalLM.from_pretrained(directory)
        return model.eval(), AutoTokenizer.from_pretrained(directory)

    return loaded


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
    made: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Path:
    """Lay out a job directory as the supervisor does."""
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
    write_rows(directory / "dataset.parquet", rows() if made is None else made)
    return directory


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def start(directory: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The train program as a child process; standard input is closed unless asked otherwise."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker.programs.train", str(directory), *arguments],
        cwd=directory,
        env=environment(),
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL} | options,
    )


def run(directory: Path) -> tuple[int, list[ProgramEvent]]:
    """Run the train program to its end: exit status and events."""
    program = start(directory)
    program.communicate(timeout=120)
    return program.returncode, events(directory)


def events(directory: Path) -> list[ProgramEvent]:
    lines = (directory / "events.jsonl").read_text().splitlines()
    found = [program_event.validate_json(line) for line in lines]
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return found


def of_type(found: list[ProgramEvent], kind: str) -> list[Any]:
    return [event for event in found if event.type == kind]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
