"""`python -m worker.programs.merge JOB_DIR`: an adapter becomes part of its base model."""

import itertools
import json
import shutil
import signal

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.domain.digests import sha256_of
from service.domain.events import EXIT_DONE, EXIT_FAILED
from tests.support.model_variants import edit_json, variant
from tests.support.mxfp4 import pack_experts
from tests.support.train_jobs import (
    events,
    make_job,
    of_type,
    read_json,
    rows,
    run_here,
    spec,
    start,
)
from worker.merging import comparison
from worker.programs import load_model
from worker.runtime import progress as steps

FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}
SPECS = {
    "llama": spec(),
    "llama-nf4": spec(quantization=FOUR_BIT),
    "llama-dora-rslora": spec(lora={"use_dora": True, "use_rslora": True}),
    "qwen3-all-linear": spec(base_model="tiny-qwen3", lora={"target_modules": "all-linear"}),
    "gpt_oss-nf4": spec(base_model="tiny-gpt_oss", quantization=FOUR_BIT),
    "gpt_oss-experts": spec(
        base_model="tiny-gpt_oss",
        lora={
            "lora_dropout": 0.0,
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
    "gpt_oss-bias": spec(base_model="tiny-gpt_oss", lora={"bias": "all"}),
}
EACH_SPEC = [
    pytest.param(name, marks=() if name.startswith("llama") else pytest.mark.extended)
    for name in SPECS
]
"""Values of a test's parameter: one family in `make test`, the others in `make test-all`."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(models_dir, tmp_path_factory):
    """Return a function that trains a run once and returns its directory."""
    directories = {}

    def train(name):
        if name not in directories:
            directory = make_job(tmp_path_factory.mktemp(name), models_dir, SPECS[name])
            status, _ = run_here(directory)
            assert status == EXIT_DONE, (directory / "events.jsonl").read_text()
            directories[name] = directory
        return directories[name]

    return train


def order(directory, models, weights, run_spec, dataset_rows=None, **task):
    """A merge's job directory, as the supervisor lays it out."""
    fields = {
        "target": "adapter",
        "step": 12,
        "dtype": "float32",
        "max_shard_bytes": 10**9,
        "base_weights": "original",
        "labels": ["hate", "normal"],
        "split": "validation",
    }
    job = make_job(
        directory,
        models,
        run_spec,
        dataset_rows,
        kind="merge",
        task=fields | task,
        adapter="adapter",
    )
    (job / "adapter").mkdir()
    for name in ADAPTER:
        shutil.copy(weights / name, job / "adapter")
    return job


def merged(job):
    status, emitted = run_here(job, "merge")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    (event,) = of_type(emitted, "merged")
    return event, emitted


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[1, 30, 31, 32, 33, 34, 40]])).logits.float()


def adapted(models, weights, run_spec):
    """Return the weights that peft merges from base model and adapter, in float32."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(models / run_spec.base_model)
    return PeftModel.from_pretrained(base, str(weights)).merge_and_unload()


@pytest.fixture
def tolerant(monkeypatch):
    """Random weights are moved far by 4 bits, and labels with them."""
    monkeypatch.setattr(comparison, "MAX_CHANGED_SHARE_ORIGINAL", 1.0)


@pytest.mark.parametrize("name", EACH_SPEC)
def test_the_merged_model_is_what_peft_makes_of_the_two(
    trained, models_dir, tmp_path, name, tolerant
):
    weights, run_spec = trained(name), SPECS[name]
    job = order(tmp_path, models_dir, weights, run_spec)
    event, emitted = merged(job)
    opened = AutoModelForCausalLM.from_pretrained(job / "merged")
    expected = adapted(models_dir, weights, run_spec)
    assert type(opened) is type(expected)
    own = dict(expected.named_parameters())
    for key, parameter in opened.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.allclose(parameter, own[key], rtol=1e-5, atol=1e-6), key
    assert torch.allclose(logits(opened), logits(expected), rtol=1e-4, atol=1e-4)
    plain = logits(AutoModelForCausalLM.from_pretrained(models_dir / run_spec.base_model))
    assert not torch.allclose(logits(opened), plain, rtol=1e-2, atol=1e-2)
    assert event.comparison.rows == 8
    if not run_spec.quantization.load_in_4bit:
        assert event.comparison.labels_changed == 0
        assert event.comparison.max_difference < 1e-4
    assert not [entry for entry in of_type(emitted, "log") if "peft merges" in entry.message]
    phases = [entry.phase for entry in of_type(emitted, "phase")]
    assert phases == [
        "starting",
        "loading",
        "evaluating",
        "merging",
        "evaluating",
        "saving",
        "done",
    ]


@pytest.mark.extended
@pytest.mark.parametrize("name", ["llama-nf4", "gpt_oss-nf4"])
def test_what_the_training_saw_gives_the_adapters_own_scores(
    trained, models_dir, tmp_path, name, tolerant
):
    """To float32's rounding: a stricter test than of labels, and one that original weights fail."""
    weights, run_spec = trained(name), SPECS[name]
    apart = {}
    for base_weights in ("original", "dequantized"):
        job = order(
            tmp_path / base_weights, models_dir, weights, run_spec, base_weights=base_weights
        )
        apart[base_weights] = merged(job)[0].comparison
    assert apart["dequantized"].max_difference < 1e-4
    assert apart["dequantized"].labels_changed == 0
    assert apart["original"].max_difference > 10 * apart["dequantized"].max_difference


@pytest.mark.extended
@pytest.mark.parametrize("experts", [False, True])
def test_gpt_oss_as_published_is_dequantized_first(models_dir, tmp_path, experts):
    """Its experts are in MXFP4, and may have adapters too."""
    models = tmp_path / "models"
    expected = pack_experts(models_dir / "tiny-gpt_oss", models / "tiny-gpt_oss")
    run_spec = SPECS["gpt_oss-experts"] if experts else spec(base_model="tiny-gpt_oss")
    weights = make_job(tmp_path / "run", models, run_spec)
    assert run_here(weights)[0] == EXIT_DONE
    job = order(tmp_path / "job", models, weights, run_spec, max_shard_bytes=100_000)
    event, _ = merged(job)
    assert event.comparison.max_difference < 1e-4
    assert "quantization_config" not in read_json(job / "merged" / "config.json")
    opened = AutoModelForCausalLM.from_pretrained(job / "merged")
    tensors = dict(opened.named_parameters())
    for name, values in expected.items():
        assert torch.equal(tensors[name], values) is not experts, name
    assert not any("_blocks" in name for name in read_json(index_of(job))["weight_map"])


def index_of(job):
    return job / "merged" / "model.safetensors.index.json"


def test_everything_that_belongs_to_a_model_is_there(trained, models_dir, tmp_path):
    job = order(tmp_path, models_dir, trained("llama"), SPECS["llama"], dtype="bfloat16")
    event, _ = merged(job)
    directory = job / "merged"
    assert {entry.path for entry in event.files} == {path.name for path in directory.iterdir()}
    assert {entry.path for entry in event.files} >= {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for entry in event.files:
        assert (entry.size, entry.sha256) == (
            (directory / entry.path).stat().st_size,
            sha256_of(directory / entry.path),
        )
    assert read_json(directory / "config.json")["dtype"] == "bfloat16"
    assert {entry.dtype for entry in load_file(directory / "model.safetensors").values()} == {
        torch.bfloat16
    }
    assert AutoModelForCausalLM.from_pretrained(directory).dtype == torch.bfloat16
    chat = [{"role": "user", "content": "people like that"}]
    before, after = (
        AutoTokenizer.from_pretrained(entry).apply_chat_template(chat)["input_ids"]
        for entry in (models_dir / "tiny-llama", directory)
    )
    assert before == after
    card = (directory / "README.md").read_text()
    assert "on 8 rows of the validation split" in card
    assert "base_model: tiny-llama" in card
    assert "in bfloat16" in card


def test_files_are_no_larger_than_asked_for_and_open_as_one(trained, models_dir, tmp_path):
    whole = order(tmp_path / "whole", models_dir, trained("llama"), SPECS["llama"])
    parts = order(
        tmp_path / "parts", models_dir, trained("llama"), SPECS["llama"], max_shard_bytes=60_000
    )
    merged(whole)
    event, _ = merged(parts)
    directory = parts / "merged"
    index = read_json(directory / "model.safetensors.index.json")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert set(index["weight_map"].values()) == {path.name for path in shards}
    assert not (directory / "model.safetensors").exists()
    expected = load_file(whole / "merged" / "model.safetensors")
    assert set(index["weight_map"]) == set(expected)
    total = 0
    for path in shards:
        tensors = load_file(path)
        size = sum(entry.nbytes for entry in tensors.values())
        assert size <= 60_000 or len(tensors) == 1
        total += size
        for key, value in tensors.items():
            assert index["weight_map"][key] == path.name
            assert torch.equal(value, expected[key])
    assert index["metadata"]["total_size"] == total
    first, second = (AutoModelForCausalLM.from_pretrained(job / "merged") for job in (whole, parts))
    assert torch.equal(logits(first), logits(second))
    assert event.comparison.labels_changed == 0


def test_what_is_written_at_a_time_is_one_files_weights(trained, models_dir, tmp_path, monkeypatch):
    from worker.merging import streamed

    most = []
    save = streamed.save_file
    monkeypatch.setattr(
        streamed,
        "save_file",
        lambda tensors, *args, **kwargs: (
            most.append(sum(entry.nbytes for entry in tensors.values())),
            save(tensors, *args, **kwargs),
        ),
    )
    merged(order(tmp_path, models_dir, trained("llama"), SPECS["llama"], max_shard_bytes=150_000))
    assert len(most) > 2
    assert max(most) <= 150_000


def test_where_weights_cannot_be_streamed_peft_merges_and_says_why(
    trained, models_dir, tmp_path, monkeypatch
):
    from worker.merging import streamed

    monkeypatch.setattr(streamed, "unstreamable_reason", lambda *_: "its names are others")
    for name, base_weights in (("llama", "original"), ("llama-nf4", "dequantized")):
        job = order(
            tmp_path / name,
            models_dir,
            trained(name),
            SPECS[name],
            max_shard_bytes=60_000,
            base_weights=base_weights,
        )
        event, emitted = merged(job)
        assert event.comparison.max_difference < 1e-4
        assert len(list((job / "merged").glob("model-*.safetensors"))) > 3
        messages = [entry.message for entry in of_type(emitted, "log")]
        assert "peft merges, with the whole model in memory: its names are others." in messages


def test_a_base_that_comes_quantized_is_refused_before_it_is_scored(trained, models_dir, tmp_path):
    name = SPECS["llama"].base_model
    base = variant(models_dir / name, tmp_path / "models" / name)
    edit_json(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    job = order(tmp_path / "job", tmp_path / "models", trained("llama"), SPECS["llama"])
    status, emitted = run_here(job, "merge")
    assert (status, emitted[-1].reason) == (EXIT_FAILED, "invalid_spec")
    assert "contain quantized weights (bitsandbytes)" in emitted[-1].detail
    phases = [event.phase for event in of_type(emitted, "phase")]
    assert phases == ["starting", "loading"]


def test_a_run_without_labels_is_compared_by_its_own_answers(trained, models_dir, tmp_path):
    chats = [
        row
        | {
            "text": None,
            "label": None,
            "messages": json.dumps(
                [
                    {"role": "user", "content": row["text"]},
                    {"role": "assistant", "content": f"{row['label']} it is"},
                ]
            ),
        }
        for row in rows()
    ]
    job = order(tmp_path, models_dir, trained("llama"), SPECS["llama"], chats, labels=[])
    event, emitted = merged(job)
    assert event.comparison.labels_changed is None
    assert 0 <= event.comparison.max_difference < 1e-4
    assert any("nats" in entry.message for entry in of_type(emitted, "log"))


def failure(job):
    status, emitted = run_here(job, "merge")
    assert status == EXIT_FAILED
    assert not of_type(emitted, "merged")
    return emitted[-1].reason, emitted[-1].detail


def test_a_model_that_answers_otherwise_is_not_published(
    trained, models_dir, tmp_path, monkeypatch
):
    answers = itertools.count()
    monkeypatch.setattr(comparison, "predicted_label", lambda *_: next(answers))
    reason, detail = failure(order(tmp_path / "a", models_dir, trained("llama"), SPECS["llama"]))
    assert reason == "invalid_spec"
    assert "8 changed their label" in detail
    assert "Set dtype to float32" in detail
    job = order(tmp_path / "b", models_dir, trained("llama-nf4"), SPECS["llama-nf4"])
    assert "base_weights dequantized is closer" in failure(job)[1]


def test_a_row_that_changes_its_label_is_told(trained, models_dir, tmp_path, monkeypatch):
    answers = itertools.chain([0, 1], itertools.repeat(0))
    monkeypatch.setattr(comparison, "predicted_label", lambda *_: next(answers))
    event, emitted = merged(order(tmp_path, models_dir, trained("llama"), SPECS["llama"]))
    assert event.comparison.labels_changed == 1
    (warning,) = of_type(emitted, "warning")
    assert warning.code == "merged_differs"
    assert "1 changed their label" in warning.detail


GPUS_LACK = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPUS_LACK = RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate")


@pytest.fixture
def lacking(monkeypatch):
    """Memory that does not suffice for the merged model, unless it is on another device: there is
    no GPU here. `when`: it is loaded, or its rows are scored.
    """

    def lack(when, error):
        load, score = load_model.load_merged, comparison.score
        devices = []

        def loaded(directory, spec, reporter, device=None):
            devices.append(device)
            if when == "loading" and device is None:
                raise error
            return load(directory, spec, reporter, device)

        def scored(*args, **kwargs):
            if when == "scoring" and devices == [None]:
                raise error
            return score(*args, **kwargs)

        monkeypatch.setattr(load_model, "load_merged", loaded)
        monkeypatch.setattr(comparison, "score", scored)
        return devices

    return lack


@pytest.mark.parametrize(("when", "rows"), [("loading", 4), ("scoring", 1)])
def test_a_merged_model_that_the_gpu_has_no_room_for_is_compared_on_the_cpu(
    trained, models_dir, tmp_path, lacking, when, rows
):
    devices = lacking(when, GPUS_LACK)
    job = order(tmp_path, models_dir, trained("llama"), SPECS["llama"])
    fields = read_json(job / "job.json") | {"eval_batch_size": rows}
    (job / "job.json").write_text(json.dumps(fields))
    event, emitted = merged(job)
    assert devices == [None, torch.device("cpu")]
    (warning,) = of_type(emitted, "warning")
    assert warning.code == "compared_on_cpu"
    assert event.comparison.max_difference < 1e-5
    progress = of_type(emitted, "progress")
    assert (progress[-1].step, progress[-1].eta_seconds) == (progress[-1].total_steps, 0)


@pytest.mark.parametrize(
    ("when", "error", "batch"),
    [
        ("scoring", GPUS_LACK, "eval"),
        ("loading", CPUS_LACK, None),
        ("loading", MemoryError(), None),
    ],
)
def test_fewer_rows_are_tried_first_and_the_cpu_does_not_stand_in_for_itself(
    trained, models_dir, tmp_path, lacking, when, error, batch
):
    devices = lacking(when, error)
    status, emitted = run_here(
        order(tmp_path, models_dir, trained("llama"), SPECS["llama"]), "merge"
    )
    assert (status, devices) == (EXIT_FAILED, [None])
    assert (emitted[-1].reason, emitted[-1].batch) == ("out_of_memory", batch)


def test_how_long_it_will_take_is_said_once_it_is_known(trained, models_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "PROGRESS_INTERVAL_SECONDS", 0)
    _, emitted = merged(order(tmp_path, models_dir, trained("llama"), SPECS["llama"]))
    parts, phase = {}, 0
    for event in emitted:
        phase += event.type == "phase"
        if event.type == "progress":
            parts.setdefault(phase, []).append(event.eta_seconds)
    before, writing, after = list(parts.values())[:3]
    assert set(before) == {None}
    assert writing[0] is None  # of no weight it is known yet how long it takes
    assert all(left > 0 for left in writing[1:])
    assert after[0] > 0
    assert after[-1] == 0


def test_what_cannot_be_done_is_said(trained, models_dir, tmp_path):
    weights, run_spec = trained("llama"), SPECS["llama"]
    reason, detail = failure(make_job(tmp_path / "train", models_dir, run_spec))
    assert reason == "invalid_spec"
    assert "merge" in detail
    torn = order(tmp_path / "torn", models_dir, weights, run_spec)
    (torn / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    assert failure(torn)[0] == "crashed"


def test_a_weight_beyond_the_type_asked_for_is_refused(trained, models_dir, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(models_dir / "tiny-llama", models / "tiny-llama")
    file = models / "tiny-llama" / "model.safetensors"
    weights = load_file(file)
    from safetensors.torch import save_file

    weights["model.norm.weight"][0] = 1e6
    save_file(weights, file, metadata={"format": "pt"})
    job = order(tmp_path / "job", models, trained("llama"), SPECS["llama"], dtype="float16")
    reason, detail = failure(job)
    assert reason == "invalid_spec"
    assert "model.norm.weight" in detail
    assert "float16" in detail


def test_a_base_model_that_is_quantized_otherwise_is_refused(trained, models_dir, tmp_path):
    from worker.merging import base_files

    models = tmp_path / "models"
    shutil.copytree(models_dir / "tiny-llama", models / "tiny-llama")
    job = order(tmp_path / "job", models, trained("llama"), SPECS["llama"])
    assert base_files.quantization_of(models / "tiny-llama") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_files, "quantization_of", lambda _directory: "gptq")
        reason, detail = failure(job)
    assert reason == "invalid_spec"
    assert "gptq" in detail


@pytest.mark.extended
@pytest.mark.parametrize("phase", ["loading", "merging", "saving"])
def test_killed_at_any_point_it_has_said_nothing_and_begins_anew(
    trained, models_dir, tmp_path, phase
):
    job = order(tmp_path, models_dir, trained("llama"), SPECS["llama"])
    with start(job, program="merge") as program:
        file = job / "events.jsonl"
        while f'"phase":"{phase}"' not in (file.read_text() if file.exists() else ""):
            assert program.poll() is None, (job / "training.log").read_text()
        program.send_signal(signal.SIGKILL)
        program.wait(timeout=30)
    assert not of_type(events(job), "merged") or program.returncode == 0
    (job / "events.jsonl").unlink()
    event, _ = merged(job)
    assert event.comparison.labels_changed == 0


@pytest.mark.parametrize("name", ["llama", "gpt_oss-bias"])
def test_it_is_evaluated_as_the_adapter_was(trained, models_dir, tmp_path, name):
    """From its own files: the base model's are not there."""
    weights, run_spec = trained(name), SPECS[name]
    job = order(tmp_path / "merge", models_dir, weights, run_spec, max_shard_bytes=60_000)
    merged(job)
    task = {
        "target": "merged",
        "step": 12,
        "dataset_id": "ds_1",
        "split": "test",
        "template": "tiny",
        "labels": ["hate", "normal"],
        "merge": "merge_1",
    }
    directory = tmp_path / "evaluate"
    evaluation = make_job(
        directory, tmp_path / "none", run_spec, kind="evaluate", task=task, merged="merged"
    )
    shutil.copytree(job / "merged", evaluation / "merged")
    status, emitted = run_here(evaluation, "evaluate")
    assert status == EXIT_DONE, (evaluation / "events.jsonl").read_text()
    (event,) = of_type(emitted, "evaluation")
    assert (event.target, event.step) == ("merged", 12)
    both = [
        pq.read_table(entry / "evaluations" / f"{target}-test.parquet").to_pylist()
        for entry, target in ((weights, "adapter"), (evaluation, "merged"))
    ]
    for own, second in zip(*both, strict=True):
        assert own["id"] == second["id"]
        assert own["prediction"] == second["prediction"]
        assert own["score"] == pytest.approx(second["score"], abs=1e-4)


@pytest.mark.parametrize("target", ["adapter", "merged"])
def test_texts_get_the_scores_that_rows_have(trained, models_dir, tmp_path, target):
    weights, run_spec = trained("llama"), SPECS["llama"]
    test = [row for row in rows() if row["split"] == "test"]
    task = {
        "target": target,
        "step": 12,
        "merge": None,
        "template": "tiny",
        "labels": ["hate", "normal"],
        "positive_label": "hate",
        "threshold": None,
        "texts": [row["text"] for row in test],
    }
    job = make_job(
        tmp_path / "job", models_dir, run_spec, kind="predict", task=task, **{target: target}
    )
    (job / "dataset.parquet").unlink()
    if target == "merged":
        merge = order(tmp_path / "merge", models_dir, weights, run_spec)
        merged(merge)
        shutil.copytree(merge / "merged", job / "merged")
    else:
        (job / "adapter").mkdir()
        for name in ADAPTER:
            shutil.copy(weights / name, job / "adapter")
    status, emitted = run_here(job, "predict")
    assert status == EXIT_DONE, (job / "events.jsonl").read_text()
    (event,) = of_type(emitted, "predictions")
    assert event.texts == len(test)
    scores = read_json(job / event.file.path)
    assert scores["truncated"] == [False] * len(test)
    own = pq.read_table(weights / "evaluations" / "adapter-test.parquet").to_pylist()
    # Without a group the template says nothing of one; this template never does.
    for (hate, normal), row in zip(scores["probabilities"], own, strict=True):
        assert hate + normal == pytest.approx(1)
        assert hate == pytest.approx(row["score"], abs=1e-4)
    for text in task["texts"]:
        assert text not in (job / "events.jsonl").read_text()


def test_a_prediction_without_weights_is_refused(models_dir, tmp_path):
    status, emitted = run_here(make_job(tmp_path, models_dir, SPECS["llama"]), "predict")
    assert (status, emitted[-1].reason) == (EXIT_FAILED, "invalid_spec")
