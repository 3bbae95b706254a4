"""`make` builds a dataset from texts, bytes or lists of rows, in a folder of its own."""

import io
import json

import pytest

from service.datasets.build import build
from service.domain.errors import InvalidRequest


def as_bytes(content) -> bytes:
    """Bytes as they are, text as UTF-8, a list of rows as JSON Lines."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    return "".join(json.dumps(row) + "\n" for row in content).encode()


@pytest.fixture
def make(tmp_path):
    def run(files, **options):
        opened = {name: io.BytesIO(as_bytes(content)) for name, content in files.items()}
        return build(opened, tmp_path, **options)

    return run


@pytest.fixture
def refuse(make, tmp_path):
    """Builds, asserts that it is refused and leaves no file behind, and returns the error."""

    def run(files, **options):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InvalidRequest) as caught:
            make(files, **options)
        assert sorted(tmp_path.iterdir()) == before
        assert caught.value.errors
        return caught.value

    return run


@pytest.fixture
def problems(refuse):
    """Returns pointer -> detail of a refusal."""

    def run(files, **options):
        return {item.pointer: item.detail for item in refuse(files, **options).errors}

    return run


@pytest.fixture
def good():
    return [{"text": "a", "label": "hate"}, {"text": "b", "label": "normal"}]


@pytest.fixture
def chat():
    def turns(user="question", answer="yes", system=None):
        start = [] if system is None else [{"role": "system", "content": system}]
        return [
            *start,
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer},
        ]

    return turns
