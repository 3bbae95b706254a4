"""What goes into a row file comes out of it, whatever the text."""

import io
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets.build import build
from service.datasets.rows import SPLITS, Message, Row, RowWriter, read_rows
from service.domain.digests import sha256_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1
).map(tuple)
NAME = st.none() | TEXT
ROW = st.builds(
    Row,
    id=TEXT,
    split=st.sampled_from(SPLITS),
    text=NAME,
    messages=st.none() | MESSAGES,
    label=NAME,
    group=NAME,
    source=NAME,
    detail=NAME,
    rationale=NAME,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(ROW, max_size=20))
def test_rows_come_back_as_they_were_and_bytes_are_the_same(rows):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("a", "b")]
        for path in paths:
            with RowWriter(path) as writer:
                for row in rows:
                    writer.add(row)
        assert list(read_rows(paths[0])) == rows
        assert sha256_of(paths[0]) == sha256_of(paths[1])


UPLOADED = TEXT.filter(lambda text: text.strip() and "\0" not in text)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(UPLOADED, min_size=1, max_size=20), st.booleans(), st.sampled_from(["lines", "array"])
)
def test_any_text_survives_the_upload(texts, ascii_only, shape):
    texts = [*texts, "one", "more"]
    rows = [{"text": text, "label": ("hate", "normal")[n % 2]} for n, text in enumerate(texts)]
    if shape == "array":
        content = json.dumps(rows, ensure_ascii=ascii_only)
    else:
        content = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        built = build({"train": io.BytesIO(content.encode())}, Path(folder))
        assert [row.text for row in read_rows(built.path)] == texts


def test_a_batch_is_bounded_by_characters_too(tmp_path):
    path = tmp_path / "rows"
    rows = [Row(id=str(n), split="train", text="x" * 1_000_000) for n in range(20)]
    with RowWriter(path) as writer:
        for row in rows:
            writer.add(row)
            assert len(writer._columns["id"]) < 8
    assert list(read_rows(path)) == rows
