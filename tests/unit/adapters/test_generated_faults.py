"""Archives, configurations and weights broken at random are refused, and nothing else happens."""

import gzip
import io
import json
import random
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.archive import unpack
from service.adapters.weights import read_weights
from service.domain.adapter_config import AdapterConfig
from service.domain.errors import InvalidRequest
from tests.support.peft_adapters import CONFIG, adapter, files, from_header, tar

LIMIT = 1 << 20
COMPRESSIONS = {
    "tar": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}
FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


def checked(archive: bytes) -> str | None:
    """None for an adapter that is accepted; the detail of the refusal otherwise."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "files")
        folder.mkdir()
        try:
            unpacked = unpack(io.BytesIO(archive), folder, LIMIT)
            config = AdapterConfig.parse(unpacked.config.read_bytes())
            read_weights(unpacked.weights, config)
        except InvalidRequest as error:
            for flaw in error.errors:
                assert flaw.pointer.startswith("/file")
                assert flaw.pointer.encode()
                assert flaw.detail.isprintable(), flaw.detail
            return error.detail
        finally:
            assert [path.name for path in Path(name).iterdir()] == ["files"]
    return None


def test_what_is_broken_below_was_accepted():
    for compress in COMPRESSIONS.values():
        assert checked(compress(adapter())) is None


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_archives_with_random_bytes(compression):
    generator = random.Random(compression)
    long_name = {"n" * 90 + "/" + "n" * 90: b"x"}
    outcomes = set()
    for number in range(400):
        content = bytearray(tar(files() | long_name, FORMATS[number % 3]))
        if compression == "tar" or number % 2:
            spoil(content, generator)
        archive = bytearray(COMPRESSIONS[compression](bytes(content)))
        if not number % 2:
            spoil(archive, generator)
        outcomes.add(checked(bytes(archive)) is None)
    assert False in outcomes


def spoil(content: bytearray, generator: random.Random) -> None:
    match generator.randrange(3):
        case 0:
            del content[generator.randrange(len(content)) :]
        case 1:
            for _ in range(generator.randrange(1, 8)):
                content[generator.randrange(len(content))] = generator.randrange(256)
        case _:
            start = generator.randrange(len(content))
            del content[start : start + generator.randrange(1, 600)]


@given(st.binary(max_size=2000))
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_no_archive(content):
    assert checked(content) is not None


def test_a_header_with_every_type_of_entry():
    for code in range(256):
        content = bytearray(tar(files()))
        content[156] = code
        header = bytes(content[:148]) + b" " * 8 + bytes(content[156:512])
        content[148:156] = f"{sum(header):06o}\0 ".encode()
        assert (checked(bytes(content)) is None) == (code in b"\x0007")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda items: (
        st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=8), items, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from([*AdapterConfig.model_fields, *CONFIG, "modules_to_save", "task_type"])


@given(st.dictionaries(names | st.text(max_size=8), json_values, min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_configurations_with_random_values(changes):
    text = json.dumps(CONFIG | changes)
    checked(tar(files() | {"adapter_config.json": text.encode()}))


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200, deadline=None)
def test_configurations_that_are_none(content):
    detail = checked(tar(files() | {"adapter_config.json": content}))
    assert detail is not None
    assert detail.startswith("/file/adapter_config.json")


@pytest.mark.parametrize(
    "content",
    [
        b"9" * 10_000,
        b'{"r": ' + b"9" * 10_000 + b"}",
        b"[" * 200_000,
        b'{"a": 1e999}',
        b"\xff\xfe{",
    ],
)
def test_json_that_its_parser_refuses_in_its_own_way(content):
    assert checked(tar(files() | {"adapter_config.json": content}))
    assert checked(tar(files() | {"adapter_model.safetensors": from_header(content, b"")}))
    text = json.dumps(CONFIG)[:-1].encode() + b', "lora_alpha": 1' + b"0" * 400 + b"}"
    assert checked(tar(files() | {"adapter_config.json": text}))


entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "I8", "", "F99"]) | json_values,
        "shape": st.lists(st.integers(-2, 2**70), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-2, 2**70), max_size=3) | json_values,
    },
)
tensor_names = st.sampled_from(
    [f"base_model.model.layers.0.q.{part}" for part in ("lora_A.weight", "lora_B.weight", "bias")]
) | st.text(st.characters(exclude_categories=()), max_size=12)


@given(st.dictionaries(tensor_names, entries | json_values, max_size=3), st.binary(max_size=40))
@settings(max_examples=400, deadline=None)
def test_headers_of_weights_with_random_entries(header, data):
    content = from_header(header, data)
    detail = checked(tar(files() | {"adapter_model.safetensors": content}))
    assert detail is not None
    assert detail.startswith("/file/adapter_model.safetensors")


def test_random_bytes_in_the_weights():
    generator = random.Random(3)
    for _ in range(400):
        content = bytearray(files()["adapter_model.safetensors"])
        spoil(content, generator)
        checked(tar(files() | {"adapter_model.safetensors": bytes(content)}))


def test_a_bomb_is_refused_before_it_is_written():
    for compress in list(COMPRESSIONS.values())[1:]:
        archive = compress(tar({"adapter_model.safetensors": bytes(4 * LIMIT)}))
        assert len(archive) < LIMIT / 50
        assert "holds more than 1,048,576 bytes (FAIRTUNE_MAX_UPLOAD_BYTES)" in checked(archive)


def test_chained_headers_cost_no_memory_and_no_stack():
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, 0
    content = entry.tobuf(tarfile.USTAR_FORMAT) * 20_000
    with tempfile.TemporaryDirectory() as folder, pytest.raises(InvalidRequest) as refused:
        unpack(io.BytesIO(content), Path(folder), 1 << 30)
    assert "more than 10,000 entries" in refused.value.detail
