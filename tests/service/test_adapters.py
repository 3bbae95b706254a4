"""Importing adapters: what is accepted, what is refused by name, and that an adapter is a run."""

import errno
import gzip
import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sqlmodel import select

from service.ops.capacity_limiter import CapacityLimiter
from service.store.tables import Job, Run
from service.usecases import adapters, datasets
from service.usecases.reference_texts import NAME
from tests.support.peft_adapters import CONFIG, adapter, files, safetensors, tar, tensors

OPTIONS = {"base_model": "tiny", "quantization": {"load_in_4bit": False}}


def post(client, content: bytes, options: dict | str | None = None, key: str | None = None):
    headers = {} if key is None else {"Idempotency-Key": key}
    text = options if isinstance(options, str) else json.dumps(options or OPTIONS)
    return client.post(
        "/v1/adapters",
        files={"file": ("adapter.tar", content)},
        data={"options": text},
        headers=headers,
    )


def imported(client, content: bytes | None = None, options: dict | None = None) -> dict:
    answer = post(client, adapter() if content is None else content, options)
    assert answer.status_code == 201, answer.text
    return answer.json()


def refused(client, content: bytes, options: dict | str | None = None) -> tuple[str, str]:
    """Pointer and detail of the only flaw; nothing is left behind."""
    answer = post(client, content, options)
    assert answer.status_code == 422, answer.text
    (flaw,) = answer.json()["errors"]
    assert client.get("/v1/adapters").json()["data"] == []
    return flaw["pointer"], flaw["detail"]


@pytest.mark.both_databases
def test_an_imported_adapter_is_a_run(client, context):
    view = imported(client)
    run_id = view["id"]
    assert view["labels"] == ["hate", "normal"]
    assert (view["base_model"], view["dataset_id"]) == ("tiny", None)
    assert view["peft"]["modules"] == ["q_proj", "v_proj"]
    assert (view["tensors"], view["parameters"], view["dtypes"]) == (8, 256, ["F32"])
    assert client.get(f"/v1/adapters/{run_id}").json() == view
    assert client.get("/v1/adapters").json()["data"] == [view]
    run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["origin"], run["percent"]) == ("succeeded", "imported", 100)
    assert run["spec"]["lora"]["r"] == 4
    assert [item["id"] for item in client.get("/v1/runs").json()["data"]] == [run_id]
    (event,) = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    assert (event["data"]["status"], event["data"]["origin"]) == ("succeeded", "imported")
    listed = client.get(f"/v1/runs/{run_id}/artifacts").json()["data"]
    assert [file["path"] for file in listed] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    for name, content in files().items():
        assert client.get(f"/v1/runs/{run_id}/artifacts/{name}").content == content
    card = client.get(f"/v1/runs/{run_id}/artifacts/README.md").text
    assert "imported into Fairtune" in card
    with context.database.read() as session:
        assert session.exec(select(Job.status)).all() == ["succeeded"]
    for action in ("cancel", "pause", "resume", "retry"):
        assert client.post(f"/v1/runs/{run_id}/{action}").status_code == 409
    clone = client.post(f"/v1/runs/{run_id}/clone", json={})
    assert clone.status_code == 409
    assert "there is no training to repeat" in clone.json()["detail"]


@pytest.mark.both_databases
def test_it_is_evaluated_merged_and_asked_like_a_run(client, dataset_id):
    run_id = imported(client)["id"]
    url = f"/v1/runs/{run_id}"
    without = client.post(f"{url}/evaluations", json={})
    assert without.status_code == 422
    assert without.json()["errors"][0]["pointer"] == "/dataset_id"
    for target in ("adapter", "base"):
        body = {"target": target, "dataset_id": dataset_id}
        assert client.post(f"{url}/evaluations", json=body).status_code == 201
    assert client.post(f"{url}/merged", json={}).status_code == 201
    assert client.post(f"{url}/predictions", json={"texts": ["a"]}).status_code == 201
    answer = client.get(f"{url}/bias-report")
    assert answer.status_code == 409
    assert "imported" in answer.json()["detail"]


def test_a_download_can_be_imported_again(client):
    run_id = imported(client)["id"]
    for compress in (
        bytes,
        gzip.compress,
        lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
    ):
        archive = client.get(f"/v1/runs/{run_id}/adapter/download?format=tar").content
        again = imported(client, compress(archive))
        assert again["id"] != run_id
        first = client.get(f"/v1/adapters/{run_id}").json()
        differing = {name for name in first if first[name] != again[name]}
        assert differing == {"id", "created_at"}


@pytest.mark.parametrize("archive_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("folder", ["", "./", "adapter/", "an adapter/"])
def test_one_folder_and_foreign_files_are_no_obstacle(client, archive_format, folder):
    contents = files() | {"README.md": b"# A card of its own\n", "training_args.bin": b"\x80\x02."}
    contents |= {"._adapter_config.json": b"\0", ".DS_Store": b"\0", "checkpoint-1/x.pt": b"x"}
    contents["a" * 90 + "/" + "b" * 90] = b""
    view = imported(client, tar({folder + n: c for n, c in contents.items()}, archive_format))
    assert view["ignored_files"] == ["a" * 79 + "…", "checkpoint-1/x.pt", "training_args.bin"]
    card = client.get(f"/v1/runs/{view['id']}/artifacts/README.md").text
    assert card == "# A card of its own\n"


def linked(kind: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("adapter_config.json")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    return file.getvalue()


GOOD = files()
WEIGHTS = {"adapter_model.safetensors": GOOD["adapter_model.safetensors"]}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
ARCHIVES = {
    "absolute": (tar({"/adapter_config.json": b"{}"}), "leads out of the archive"),
    "parent": (tar({"a/../../adapter_config.json": b"{}"}), "leads out of the archive"),
    "backslash": (tar({"..\\adapter_config.json": b"{}"}), "leads out of the archive"),
    "symlink": (linked(tarfile.SYMTYPE), "is a symbolic link: pack the files themselves (tar -h)"),
    "hard link": (linked(tarfile.LNKTYPE), "is a hard link: pack the files"),
    "device": (linked(tarfile.CHRTYPE), "is a device"),
    "pipe": (linked(tarfile.FIFOTYPE), "is a pipe"),
    "twice": (tar(GOOD | {"./adapter_config.json": b"{}"}), "occurs twice"),
    "pickle": (
        tar({"adapter_config.json": GOOD["adapter_config.json"], "adapter_model.bin": b"\x80"}),
        "a Python pickle, which is never opened",
    ),
    "no weights": (tar({"adapter_config.json": b"{}"}), "adapter_model.safetensors is missing"),
    "no config": (tar(WEIGHTS), "adapter_config.json is missing at the top"),
    "deeper": (
        tar({"out/checkpoint-9/" + n: c for n, c in GOOD.items()} | {"out/x": b""}),
        "there is one in out/checkpoint-9: pack that folder alone",
    ),
    "empty": (b"", "is empty"),
    "no files": (tar({}), "is an empty archive"),
    "zip": (b"PK\x03\x04" + bytes(30), "is a zip archive, not a tar"),
    "page": (b"<!DOCTYPE html><html></html>", "is an HTML page"),
    "lfs": (POINTER, "git lfs pull"),
    "weights alone": (GOOD["adapter_model.safetensors"], "is no tar archive"),
    "cut off": (tar(GOOD)[:1500], "ends in the middle of a file"),
    "gzip cut off": (gzip.compress(tar(GOOD))[:-30], "cannot be decompressed"),
    "many": (tar({f"{n}": b"" for n in range(10_001)}), "more than 10,000 entries"),
    "long header": (
        tar({"a": b"", "b" * 2_000_000: b""}),
        "has a header of",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_is_unsafe_or_incomplete_is_refused(client, settings, case):
    content, says = ARCHIVES[case]
    pointer, detail = refused(client, content)
    assert pointer == "/file"
    assert says in detail, detail
    assert not list((settings.data_dir / "artifacts").rglob("*adapter*"))


CONFIGS = {
    "adalora": ({"peft_type": "ADALORA"}, "/peft_type", "only LORA adapters are supported"),
    "ia3": ({"peft_type": "IA3"}, "/peft_type", "only LORA"),
    "none": ({"peft_type": None}, "/peft_type", "only LORA"),
    "modules": ({"modules_to_save": ["lm_head"]}, "/modules_to_save", "replaces whole layers"),
    "tokens": ({"trainable_token_indices": [3]}, "/trainable_token_indices", "embeddings"),
    "replication": ({"layer_replication": [[0, 2], [1, 2]]}, "/layer_replication", "replicated"),
    "megatron": ({"megatron_config": {"a": 1}}, "/megatron_config", "Megatron"),
    "lora bias": ({"lora_bias": True}, "/lora_bias", "biases of its own"),
    "classifier": ({"task_type": "SEQ_CLS"}, "/task_type", "only CAUSAL_LM"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "/init_lora_weights", "conversion"),
    "of a future peft": ({"quantum": {"x": 1}}, "/quantum", "not known to this version"),
    "rank": ({"r": 0}, "/r", "must be at least 1"),
    "rank of text": ({"r": "4"}, "/r", "must be a whole number"),
    "alpha": ({"lora_alpha": [8]}, "/lora_alpha", "must be a number"),
    "pattern": ({"rank_pattern": {"q_proj": 0}}, "/rank_pattern", "not a rank"),
    "bias": ({"bias": "some"}, "/bias", "'none', 'all' or 'lora_only'"),
    "no target": ({"target_modules": []}, "/target_modules", "names no layer"),
    "nul": ({"target_modules": ["q\0"]}, "/target_modules/0", "NUL"),
    "surrogate": ({"base_model_name_or_path": "\ud800"}, "/base_model_name_or_path", "surrogate"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(client, case):
    config, field, says = CONFIGS[case]
    pointer, detail = refused(client, adapter(config))
    assert pointer == f"/file/adapter_config.json{field}"
    assert says in detail, detail


BASE = "base_model.model.model.layers.0.self_attn.q_proj"
ONES = ("F32", np.ones((4, 8), np.float32))


def changed(**changes: object) -> bytes:
    content = tensors()
    for name, value in changes.items():
        full = f"{BASE}.{name.replace('__', '.')}"
        content.pop(full, None)
        if value is not None:
            content[full] = value
    return safetensors(content)


def fake(content: bytes) -> bytes:
    return tar(files() | {"adapter_model.safetensors": content})


FLAWS = {
    "lfs": (POINTER, "is a Git LFS pointer, not the weights; fetch the file itself with git lfs"),
    "pickle": (b"\x80\x02}q\x00." + bytes(20), "is a Python pickle"),
    "zip": (b"PK\x03\x04" + bytes(60), "is a zip archive, not a safetensors file"),
    "page": (b"<html>not found</html>", "is an HTML page"),
    "text": (b"hello", "is no safetensors file"),
    "nothing": (b"", "is no safetensors file"),
    "cut off in data": (GOOD["adapter_model.safetensors"][:-5], "is cut off: it has"),
    "cut off in header": (GOOD["adapter_model.safetensors"][:99], "is cut off within its header"),
    "longer": (GOOD["adapter_model.safetensors"] + b"x", "bytes after its last tensor"),
    "no B": (changed(lora_B__weight=None), "has lora_A but no lora_B"),
    "no A": (changed(lora_A__weight=None), "has lora_B but no lora_A"),
    "another rank": (
        changed(
            lora_A__weight=("F32", np.ones((5, 8), np.float32)),
            lora_B__weight=("F32", np.ones((8, 5), np.float32)),
        ),
        "has the rank 5, but adapter_config.json says 4",
    ),
    "two ranks": (changed(lora_B__weight=("F32", np.ones((8, 3), np.float32))), "the rank 3"),
    "four dimensions": (
        changed(lora_A__weight=("F32", np.ones((4, 8, 1, 1), np.float32))),
        "must be matrices",
    ),
    "type": (changed(lora_A__weight=("I8", np.ones((4, 8), np.int8))), "is of the type I8"),
    "dora": (
        changed(lora_magnitude_vector=("F32", np.ones(8, np.float32))),
        "use_dora is false",
    ),
    "embedding": (changed(lora_embedding_A=ONES), "adapts an embedding"),
    "bias": (changed(bias=("F32", np.ones(8, np.float32))), "but bias is none"),
    "whole weight": (changed(weight=ONES), "is a whole weight of the base model"),
    "foreign names": (safetensors({"transformer.x.lora_A.weight": ONES}), "that peft writes"),
    "no tensors": (safetensors({}), "holds no tensors"),
}


@pytest.mark.parametrize("case", FLAWS)
def test_weights_that_are_damaged_or_do_not_belong_are_refused(client, case):
    content, says = FLAWS[case]
    pointer, detail = refused(client, fake(content))
    assert pointer == "/file/adapter_model.safetensors"
    assert says in detail, detail


REFUSED_OPTIONS = {
    "json": ("{", "/options", "is not JSON"),
    "list": ("[]", "/options", "must be an object"),
    "field": ({"lr": 1}, "/options/lr", "unknown field; options has name"),
    "lora": ({"lora": {"r": 8}}, "/options/lora", "is read from adapter_config.json"),
    "training": (
        {"training": {"learning_rate": 1}},
        "/options/training/learning_rate",
        "trained already; training has max_seq_length, bf16, per_device_eval_batch_size",
    ),
    "preset": ({"preset": "x"}, "/options/preset", "no such preset"),
    "path": ({"base_model": "/models/x"}, "/options/base_model", "paths are not accepted"),
    "template": ({"template": "x"}, "/options/template", "no such template"),
    "words": ({"labels": ["a", "b"]}, "/options/template", "has no word for the label 'a'"),
    "one label": ({"labels": ["a"], "template": "label_only"}, "/options/labels", "2 to 100"),
    "no labels": ({"labels": 5}, "/options/labels", "must be a list"),
    "twice": ({"labels": ["a", "a"]}, "/options/labels", "each listed once"),
    "positive": (
        {"labels": ["a", "b"], "template": "label_only"},
        "/options/fairness/positive_label",
        "the adapter has no label 'hate'; its labels are a, b",
    ),
    "dataset": ({"dataset_id": "ds_x"}, "/options/dataset_id", "there is no dataset"),
    "fitted": (
        {"evaluation": {"threshold": "fitted"}},
        "/options/evaluation/threshold",
        "requires a dataset_id with a validation split",
    ),
    "length": ({"training": {"max_seq_length": 1}}, "/options/training/max_seq_length", "16"),
    "name": ({"name": "a\nb"}, "/options/name", "unprintable"),
    "nul": ({"name": "a\0b"}, "/options/name", "NUL"),
}


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_an_option_that_does_not_fit_is_refused_by_name(client, case):
    options, field, says = REFUSED_OPTIONS[case]
    if isinstance(options, dict):
        options = {"base_model": "tiny"} | options
    pointer, detail = refused(client, adapter(), options)
    assert pointer == field
    assert says in detail, detail


@pytest.mark.parametrize("name", ["/home/someone/models/x", "../x", "C:\\models\\x", "", None])
def test_a_path_in_the_configuration_is_not_followed(client, name):
    content = adapter({"base_model_name_or_path": name})
    pointer, detail = refused(client, content, {"name": "x"})
    assert pointer == "/options/base_model"
    assert "is required" in detail
    assert imported(client, content)["base_model"] == "tiny"


def test_a_name_in_the_configuration_is_the_default(client):
    assert imported(client, options={"name": "x"})["base_model"] == "tiny"
    other = imported(client, options={"base_model": "other"})
    codes = [warning["code"] for warning in other["warnings"]]
    assert codes == ["model_missing", "other_base_model"]


@pytest.mark.both_databases
def test_the_dataset_of_an_import_gives_its_labels(client):
    rows = [{"text": f"post {n}", "label": label} for n, label in enumerate(["toxic", "fine"] * 3)]
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    answer = client.post(
        "/v1/datasets",
        data={"name": "d", "mapping": '{"labels": ["toxic", "fine"]}'},
        files={"test": content},
    )
    dataset_id = answer.json()["id"]
    options = OPTIONS | {
        "dataset_id": dataset_id,
        "template": "label_only",
        "fairness": {"positive_label": "toxic"},
    }
    view = imported(client, options=options)
    assert (view["dataset_id"], view["labels"]) == (dataset_id, ["fine", "toxic"])
    run = f"/v1/runs/{view['id']}"
    assert client.post(f"{run}/evaluations", json={}).json()["dataset_id"] == dataset_id
    assert client.post(f"{run}/merged", json={}).status_code == 201
    assert client.delete(f"/v1/datasets/{dataset_id}").status_code == 409


def test_chats_give_their_answers_and_a_text_has_the_template_words(client):
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"a chat {n}"},
                {"role": "assistant", "content": answer},
            ],
            "label": label,
        }
        for n, (label, answer) in enumerate([("hate", "yes"), ("normal", "no")] * 3)
    ]
    content = b"".join(json.dumps(row).encode() + b"\n" for row in chats)
    ids = [
        client.post("/v1/datasets", data={"name": "d"}, files={split: content}).json()["id"]
        for split in ("train", "test")
    ]
    view = imported(client, options=OPTIONS | {"dataset_id": ids[0]})
    assert view["labels"] == ["hate", "normal"]
    prediction = f"/v1/runs/{view['id']}/predictions"
    assert client.post(prediction, json={"texts": ["a"]}).status_code == 422
    turns = [[{"role": "user", "content": "a"}]]
    assert client.post(prediction, json={"messages": turns}).status_code == 201
    answer = post(client, adapter(), OPTIONS | {"dataset_id": ids[1]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/options/dataset_id"
    plain = imported(client)["id"]
    body = {"dataset_id": ids[1]}
    assert client.post(f"/v1/runs/{plain}/evaluations", json=body).status_code == 201


def test_all_adapters_without_a_dataset_share_the_texts_of_merges(client):
    first, second = imported(client)["id"], imported(client)["id"]
    (dataset,) = client.get("/v1/datasets").json()["data"]
    assert (dataset["name"], dataset["stats"]["labels"]) == (NAME, {})
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 409
    for run_id in (first, second):
        assert client.delete(f"/v1/adapters/{run_id}").status_code == 204
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    assert imported(client)["id"]


@pytest.mark.both_databases
def test_deletion_leaves_nothing_of_the_adapter(client, context, settings):
    run_id = imported(client)["id"]
    assert list((settings.data_dir / "artifacts" / "runs").rglob("*.safetensors"))
    assert client.delete(f"/v1/adapters/{run_id}").status_code == 204
    for url in (f"/v1/adapters/{run_id}", f"/v1/runs/{run_id}"):
        assert client.get(url).status_code == 404
    assert client.delete(f"/v1/adapters/{run_id}").status_code == 404
    assert not list((settings.data_dir / "artifacts" / "runs").rglob("*.safetensors"))
    with context.database.read() as session:
        assert session.exec(select(Run.id)).all() == []


def test_a_trained_run_is_no_adapter(client, run_id):
    for call in (client.get, client.delete):
        assert call(f"/v1/adapters/{run_id}").status_code == 404
    assert client.get(f"/v1/runs/{run_id}").json()["origin"] == "trained"
    assert client.get("/v1/adapters").json()["data"] == []


@pytest.mark.both_databases
def test_the_same_key_imports_once(client, settings):
    first = post(client, adapter(), key="k")
    again = post(client, adapter(), key="k")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Location"] == f"/v1/adapters/{first.json()['id']}"
    other = post(client, adapter({"lora_alpha": 9}), key="k")
    assert other.status_code == 422
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(client, adapter(), key="at once"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len(list((settings.data_dir / "artifacts" / "runs").rglob("*.safetensors"))) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ENXIO])
@pytest.mark.parametrize("step", ["store", "archive"])
def test_a_disk_that_fails_is_unavailable_and_nothing_is_left(client, monkeypatch, code, step):
    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    if step == "store":
        monkeypatch.setattr(type(client.app.state.context.store), "put_file", fail)
    else:
        monkeypatch.setattr(Path, "open", fail)
    answer = post(client, adapter())
    monkeypatch.undo()
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable")
    assert client.get("/v1/adapters").json()["data"] == []


def test_imports_take_turns_with_uploads(client, monkeypatch):
    assert adapters.LIMITER is datasets.LIMITER
    monkeypatch.setattr(adapters, "LIMITER", CapacityLimiter("uploads", 0, 0, 0))
    answer = post(client, adapter())
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:busy")
    assert answer.headers["Retry-After"]


def test_promotion_says_that_the_training_rows_are_unknown(client):
    run_id = imported(client)["id"]
    answer = client.post(f"/v1/runs/{run_id}/promote", json={"name": "n"})
    assert answer.status_code == 409
    (hindrance,) = answer.json()["hindrances"]
    assert hindrance["kind"] == "no_report"
    assert "unknown on which rows it was trained" in hindrance["detail"]
    body = {"name": "n", "override": {"reason": "we know"}}
    assert client.post(f"/v1/runs/{run_id}/promote", json=body).status_code == 201
    assert client.get(f"/v1/adapters/{run_id}").json()["promoted_as"] == ["n@production"]
    assert client.delete(f"/v1/adapters/{run_id}").status_code == 409


def test_the_configuration_covers_every_field_of_peft():
    """A field that is neither honoured, refused nor of the training would be refused as unknown."""
    from service.domain import adapter_config

    handled = {
        *adapter_config.AdapterConfig.model_fields,
        *adapter_config.UNSUPPORTED,
        *adapter_config._OF_TRAINING,
    }
    assert set(CONFIG) <= handled
