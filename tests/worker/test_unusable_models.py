"""A model directory that cannot be used fails once, with the file and the remedy in the detail."""

import ast
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_FAILED
from tests.support.broken_files import LFS_POINTER, WEB_PAGE, faults_of
from tests.support.model_variants import edit_json, edit_tokenizer, make_model, variant
from tests.support.train_jobs import TEMPLATE, make_job, run, spec
from worker.data.rows import Row
from worker.data.tokenize import Prompts, Tokens
from worker.modeling import pretrained
from worker.modeling.load import Base, add_adapter, load_base
from worker.modeling.model_failures import reading
from worker.modeling.model_files import check_files

CPU = torch.device("cpu")


@pytest.fixture
def directory(models_dir, tmp_path) -> Path:
    """A copy of the tiny Llama to break."""
    return variant(models_dir / "tiny-llama", tmp_path / "tiny-llama")


def load(directory: Path) -> Base:
    """Load a model as the programs do."""
    check_files(directory, directory.name)
    return load_base(directory, spec(base_model=directory.name), CPU)


def failure_of(directory: Path) -> ProgramFailure:
    with pytest.raises(ProgramFailure) as failure:
        load(directory)
    return failure.value


def refused(directory: Path, *parts: str, reason: str = "model_unavailable") -> None:
    failure = failure_of(directory)
    assert failure.reason == reason, failure.detail
    for part in parts:
        assert part in failure.detail


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (LFS_POINTER, ["model.safetensors is a Git LFS pointer", "git lfs pull"]),
        (WEB_PAGE, ["model.safetensors is a web page", "Download it again"]),
        (b"", ["model.safetensors is empty"]),
        (bytes(5000), ["model.safetensors begins with zero bytes"]),
    ],
)
def test_foreign_content_is_named_for_what_it_is(directory, content, parts):
    (directory / "model.safetensors").write_bytes(content)
    refused(directory, "tiny-llama cannot be loaded", *parts)


def test_torn_weights_are_named_with_their_sizes(directory):
    path = directory / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    refused(directory, f"is cut off: {len(content) - 1000:,} of {len(content):,} bytes are there")
    path.write_bytes(content[:5])
    refused(directory, "model.safetensors is not in the safetensors format")
    path.write_bytes(content[:500])
    refused(directory, "model.safetensors is cut off within its header")


def test_the_program_reports_them_before_it_imports_torch(models_dir, tmp_path):
    broken = variant(models_dir / "tiny-llama", tmp_path / "models" / "tiny-llama")
    (broken / "model.safetensors").write_bytes(LFS_POINTER)
    job = make_job(tmp_path / "job", tmp_path / "models", spec())
    status, emitted = run(job)
    assert (status, emitted[-1].type, emitted[-1].reason) == (
        EXIT_FAILED,
        "failure",
        "model_unavailable",
    )
    assert "model.safetensors is a Git LFS pointer" in emitted[-1].detail


@pytest.fixture
def shards(models_dir, tmp_path) -> Path:
    """The tiny Llama in several files, with an index."""
    from transformers import AutoModelForCausalLM

    target = variant(models_dir / "tiny-llama", tmp_path / "sharded")
    model = AutoModelForCausalLM.from_pretrained(models_dir / "tiny-llama")
    (target / "model.safetensors").unlink()
    model.save_pretrained(target, max_shard_size="150KB")
    assert len(list(target.glob("*.safetensors"))) > 2
    return target


def test_missing_and_torn_shards_are_named(shards):
    load(shards)
    first, second, *_ = sorted(shards.glob("*.safetensors"))
    content = second.read_bytes()
    second.write_bytes(content[:-7])
    refused(shards, f"{second.name} is cut off")
    second.write_bytes(first.read_bytes())
    refused(shards, f"{second.name} lacks model.", "and no file holds")
    second.unlink()
    refused(shards, f"{second.name} is missing: 1 of the ", "Download the missing files")
    second.symlink_to("../blobs/gone")
    refused(shards, f"{second.name} is a link to a file that does not exist")


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, {"a": 1}, {"a": "../x.safetensors"}, {"a": "/etc/passwd"}, "x"]
)
def test_an_index_that_is_none_is_refused(shards, weight_map):
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    refused(shards, "model.safetensors.index.json")


def test_pickled_weights_are_not_read(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    refused(directory, "pytorch_model.bin is the only form of the weights", "save_pretrained")


def test_an_adapter_is_no_model(directory):
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    refused(directory, "adapter_config.json makes this directory a LoRA adapter")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"vocab_size": 300}, ["(400, 64) in model.safetensors", "describes (300, 64)"]),
        ({"vocab_size": 10**12}, ["describes a model of 128,", "files hold at most"]),
        ({"intermediate_size": 97}, ["mlp.down_proj.weight has the shape (64, 96)"]),
        ({"intermediate_size": 10**9}, ["describes a model of 384,", "files hold at most"]),
        ({"hidden_size": -64}, ["config.json cannot be read"]),
        ({"num_hidden_layers": 3}, ["model.safetensors lacks model.layers.2.", "one of 9 weights"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers 1000000000"]),
        ({"num_attention_heads": 0}, ["config.json cannot be read"]),
        ({"max_position_embeddings": -1}, ["max_position_embeddings", "-1"]),
        ({"model_type": "unheard_of"}, ["config.json", "`unheard_of`"]),
        ({"model_type": 7}, ["config.json has a field model_type that is not text"]),
        ({"hidden_size": "64"}, ["'hidden_size' expected int, got str"]),
        ({"rope_parameters": 5}, ["config.json cannot be read"]),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_named(directory, fields, parts):
    edit_json(directory / "config.json", **fields)
    refused(directory, *parts)


def test_weights_without_a_place_in_the_config_are_reported(directory):
    edit_json(directory / "config.json", num_hidden_layers=1)
    ignored = load(directory).ignored_weights
    assert len(ignored) == 9
    assert all(name.startswith("model.layers.1.") for name in ignored)


# -- tokenizer and chat template ------------------------------------------------------------------


def test_a_template_that_does_not_parse_is_named_with_its_line(directory):
    (directory / "chat_template.jinja").write_text("{% for m in messages %}\n{% endfo %}")
    refused(directory, "chat_template.jinja does not parse (line 2", "'endfo'")


@pytest.mark.parametrize("form", ["file", "config", "named"])
def test_a_template_that_refuses_every_chat_is_named(directory, form):
    template = "{{ raise_exception('no chats today') }}"
    (directory / "chat_template.jinja").unlink()
    if form == "file":
        (directory / "chat_template.jinja").write_text(template)
    else:
        value = template if form == "config" else [{"name": "tools", "template": template}]
        edit_json(directory / "tokenizer_config.json", chat_template=value)
    file = "chat_template.jinja" if form == "file" else "tokenizer_config.json (chat_template)"
    refused(directory, file, "no chats today" if form != "named" else "")


def test_a_tokenizer_without_an_end_is_refused_with_a_suggestion(directory):
    edit_json(directory / "tokenizer_config.json", eos_token=None)
    refused(directory, "no end-of-sequence token", "tokenizer_config.json", "'<|im_end|>'")


def test_a_directory_without_a_tokenizer_says_so(directory):
    (directory / "tokenizer.json").unlink()
    refused(directory, "tokenizer.json is missing")


def test_a_padding_token_beyond_the_embeddings_is_replaced(directory):
    edit_tokenizer(directory, lambda it: it.add_special_tokens({"pad_token": "[PAD]"}))
    tokenizer = load(directory).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token
    assert max(tokenizer("a [PAD] b")["input_ids"]) < 400


def test_a_token_of_the_template_beyond_the_embeddings_is_refused(directory):
    def as_chatml(tokenizer):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|open|>", "<|close|>"]})
        tokenizer.chat_template = (
            "{% for m in messages %}{{ '<|' + 'open|>' }}{{ m.role + m.content }}{% endfor %}"
        )

    edit_tokenizer(directory, as_chatml)
    refused(
        directory,
        "its tokenizer has 402 tokens, the model 400 embeddings; '<|open|>' is token 400",
        "resize_token_embeddings",
    )


@pytest.mark.parametrize("field", ["eos_token", "bos_token"])
def test_a_special_token_beyond_the_embeddings_is_refused(directory, field):
    edit_tokenizer(directory, lambda it: it.add_special_tokens({field: "<new>"}))
    refused(directory, "'<new>' is token 400")


def test_a_word_beyond_the_embeddings_is_refused(directory):
    layout = json.loads((directory / "tokenizer.json").read_text())
    layout["model"]["vocab"]["word"] = 7000
    (directory / "tokenizer.json").write_text(json.dumps(layout))
    refused(directory, "'word' is token 7000")


def test_an_added_token_that_nothing_uses_becomes_text(directory):
    """As Gemma 3's image token, which its text models have no embedding for."""
    edit_tokenizer(directory, lambda it: it.add_tokens(["<image>"]))
    tokenizer = load(directory).tokenizer
    assert max(tokenizer("an <image> here")["input_ids"]) < 400


# -- code, causality, quantized weights -----------------------------------------------------------


@pytest.mark.parametrize("model_type", ["own", "llama"])
def test_code_in_a_model_directory_never_runs(directory, tmp_path, monkeypatch, model_type):
    """Neither by itself, nor after a `y` on standard input."""
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\n"
    for file in ("configuration_own.py", "modeling_own.py", "tokenization_own.py"):
        (directory / file).write_text(code)
    auto_map: dict[str, object] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnModel",
    }
    edit_json(directory / "config.json", model_type=model_type, auto_map=auto_map)
    if model_type == "own":
        auto_map = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
        tokenizer_config = directory / "tokenizer_config.json"
        edit_json(tokenizer_config, tokenizer_class="OwnTokenizer", auto_map=auto_map)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    if model_type == "llama":
        load(directory)  # with the classes of transformers
    else:
        refused(directory, "Python code of the model's own")
    assert not ran.exists()


def test_one_module_reads_model_directories_and_every_call_refuses_code():
    readers = ("from_pretrained", "from_config")
    modules, trusting = set(), []
    for path in (path for top in ("worker", "benchmarks") for path in Path(top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in readers:
                continue
            modules.add(path.as_posix())
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if keywords.get("trust_remote_code") != "False" and "_OPTIONS" not in (
                ast.unparse(keyword.value) for keyword in node.keywords
            ):
                trusting.append(f"{path}:{node.lineno}")
    assert {path for path in modules if path.startswith("worker")} == {
        "worker/modeling/pretrained.py"
    }
    assert trusting == []
    assert pretrained._OPTIONS["trust_remote_code"] is False


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("std", [0.02, 0.15])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("in_4bit", [False, True])
def test_a_model_that_sees_the_future_is_refused(
    models_dir, tmp_path, bfloat16, kind, std, bf16, in_4bit
):
    directory = make_model(kind, tmp_path / kind, models_dir / "tiny-llama", std)
    run_spec = spec(
        base_model=kind, training={"bf16": bf16}, quantization={"load_in_4bit": in_4bit}
    )
    with pytest.raises(ProgramFailure) as failure:
        load_base(directory, run_spec, CPU)
    assert failure.value.reason == "invalid_spec"
    assert f"({kind}) is not a causal language model" in failure.value.detail


def test_an_encoder_with_a_causal_mask_is_a_decoder(models_dir, tmp_path):
    directory = make_model("bert", tmp_path / "bert", models_dir / "tiny-llama")
    edit_json(directory / "config.json", is_decoder=True)
    load(directory)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("in_4bit", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_oss"])
def test_decoders_are_causal_in_every_precision(models_dir, bfloat16, family, in_4bit, bf16):
    run_spec = spec(
        base_model=f"tiny-{family}",
        training={"bf16": bf16},
        quantization={"load_in_4bit": in_4bit},
    )
    load_base(models_dir / f"tiny-{family}", run_spec, CPU)


def test_weights_quantized_otherwise_are_not_quantized_again(directory):
    edit_json(directory / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    run_spec = spec(quantization={"load_in_4bit": True})
    with pytest.raises(ProgramFailure) as failure:
        load_base(directory, run_spec, CPU)
    assert failure.value.reason == "invalid_spec"
    assert "quantized already (gptq)" in failure.value.detail


@pytest.fixture
def quantized(models_dir, tmp_path) -> Path:
    """The tiny Llama with its weights stored in 4 bits."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    directory = variant(models_dir / "tiny-llama", tmp_path / "quantized")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        directory, quantization_config=config, device_map={"": "cpu"}
    )
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("load_in_4bit", [False, True])
def test_a_base_that_comes_quantized_is_trained_as_it_is(quantized, load_in_4bit):
    run_spec = spec(quantization={"load_in_4bit": load_in_4bit})
    base = load_base(quantized, run_spec, CPU)
    assert base.coverage.share > 0.5
    adapted = add_adapter(base.model, run_spec.lora, 1, "tiny-llama")
    adapted(input_ids=torch.tensor([[1, 5, 6]])).logits.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in adapted.parameters())


def test_a_quantized_base_with_an_absurd_config_takes_no_memory(quantized):
    edit_json(quantized / "config.json", vocab_size=10**12)
    refused(quantized, "describes a model of 128,", "files hold at most")


@pytest.mark.parametrize("method", ["hqq", "compressed-tensors", "aqlm"])
def test_a_quantization_that_is_not_installed_is_named(directory, method):
    edit_json(directory / "config.json", quantization_config={"quant_method": method})
    refused(directory, f"quantized ({method})", "Install what the message names on the worker")


def test_an_encoder_decoder_is_not_a_causal_model(directory):
    (directory / "config.json").write_text('{"model_type": "t5", "vocab_size": 400}')
    refused(directory, "is not a causal language model", "T5Config", reason="invalid_spec")


def test_an_architecture_of_a_later_transformers_says_what_to_install(directory):
    edit_json(directory / "config.json", model_type="llama7")
    refused(directory, "`llama7`", "Install a newer transformers")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: unspecified launch failure"),
        MemoryError(),
        OSError(28, "No space left on device"),
    ],
)
def test_an_error_of_the_machine_is_not_blamed_on_the_model(error):
    with pytest.raises(type(error)), reading("tiny", "config.json"):
        raise error


# -- every file in every way ----------------------------------------------------------------------


def break_every_file(source: Path, target: Path, per_file: int) -> None:
    """Load the model with each fault of each file: it works, or says what is wrong with it.

    So does the tokenization of a row.
    """
    directory = variant(source, target)
    generator = random.Random(17)
    names = [path.name for path in sorted(source.iterdir())]
    unclear = []
    row = Row("train-1", "they never sing", None, "hate", None, None, None, "train")
    for name in names:
        faults = faults_of(source / name)
        faults = generator.sample(faults, min(per_file, len(faults)))
        for description, content in faults:
            (directory / name).write_bytes(content)
            try:
                tokens = Tokens(load(directory).tokenizer, 128)
                Prompts(tokens, TEMPLATE, None).example(row, ["hate", "normal"])
            except ProgramFailure as failure:
                clear = (
                    failure.reason in ("model_unavailable", "invalid_spec", "invalid_data")
                    and any(
                        word in failure.detail
                        for word in (*names, "max_seq_length", "its tokenizer", "chat template")
                    )
                    and failure.detail.endswith(".")
                    and len(failure.detail) < 700
                )
                if not clear:
                    unclear.append((name, description, failure.reason, failure.detail))
            except (KeyboardInterrupt, pytest.fail.Exception):  # the latter is a timeout
                raise
            except BaseException as error:  # noqa: BLE001 - a panic of tokenizers is no Exception
                unclear.append((name, description, type(error).__name__, str(error)))
        shutil.copy(source / name, directory / name)
    assert not unclear, unclear[:20]


def test_no_broken_file_is_a_fault_of_fairtunes_own(models_dir, tmp_path):
    break_every_file(models_dir / "tiny-llama", tmp_path / "tiny-llama", 12)


@pytest.mark.extended
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("family", "per_file"), [("llama", 500), ("qwen3", 100), ("gpt_oss", 200)])
def test_no_broken_file_of_any_family_is(models_dir, tmp_path, family, per_file):
    break_every_file(models_dir / f"tiny-{family}", tmp_path / f"tiny-{family}", per_file)


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["gpt2", "bloom", "mamba"])
def test_no_broken_file_of_any_architecture_is(models_dir, tmp_path, kind):
    source = make_model(kind, tmp_path / kind, models_dir / "tiny-llama")
    break_every_file(source, tmp_path / "broken", 100)


@pytest.mark.extended
def test_no_broken_quantized_file_is(quantized, tmp_path):
    break_every_file(quantized, tmp_path / "broken", 100)


@pytest.mark.extended
def test_no_broken_shard_is(shards, tmp_path):
    break_every_file(shards, tmp_path / "broken", 100)
