"""The bundled sample dataset is what its generator makes, and no keyword gives its labels away."""

import json
from collections import Counter

import pytest

from service.datasets.sample import generate

# Answering "hate" always scores 0.578 on the test split; no single word may do better.
SINGLE_WORD_BAR = 0.57


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, str]]]:
    return {
        split: [
            json.loads(line)
            for line in (generate.HERE / f"{split}.jsonl").read_text("utf-8").splitlines()
        ]
        for split in generate.COUNTS
    }


def f1(predicted: list[bool], actual: list[bool]) -> float:
    hits = sum(p and a for p, a in zip(predicted, actual, strict=True))
    return 2 * hits / (sum(predicted) + sum(actual))


def test_files_are_what_the_generator_makes():
    for split, rows in generate.generate().items():
        assert (generate.HERE / f"{split}.jsonl").read_bytes() == generate.render(rows), split


def test_shape(splits):
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 360,
        "validation": 120,
        "test": 300,
    }
    rows = [row for split in splits.values() for row in split]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == ["id", "text", "label", "group", "source", "detail"]
        assert 6 <= len(row["text"].split()) <= 30
        assert "{" not in row["text"]
        assert row["text"].isascii()


def test_both_labels_in_every_group_of_every_split(splits):
    for split, rows in splits.items():
        counts = Counter((row["group"], row["label"]) for row in rows)
        assert set(counts) == {(g, lab) for g in generate.GROUPS for lab in ("hate", "normal")}
        assert min(counts.values()) >= 0.1 * len(rows), split


def test_every_finer_label_in_every_split(splits):
    for rows in splits.values():
        assert {row["detail"] for row in rows} == set(generate.WEIGHTS)


def test_no_text_occurs_twice(splits):
    texts = Counter(row["text"].lower().strip() for rows in splits.values() for row in rows)
    assert [text for text, count in texts.items() if count > 1] == []


def test_no_test_text_is_nearly_a_training_text(splits):
    trained = [generate.words(row["text"]) for row in splits["train"]]
    for row in splits["test"]:
        bag = generate.words(row["text"])
        assert max(generate.similarity(bag, other) for other in trained) <= generate.TOO_SIMILAR


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_single_word_separates_the_labels(splits, split):
    rows = splits[split]
    actual = [row["label"] == "hate" for row in rows]
    bags = [generate.words(row["text"]) for row in rows]
    scores = {
        word: f1([word in bag for bag in bags], actual) for word in sorted(frozenset().union(*bags))
    }
    best = max(scores, key=scores.__getitem__)
    assert scores[best] < SINGLE_WORD_BAR, f"{best!r} alone scores {scores[best]:.3f}"


def test_always_answering_hate_is_no_good(splits):
    for split in ("validation", "test"):
        actual = [row["label"] == "hate" for row in splits[split]]
        assert 0.56 < f1([True] * len(actual), actual) < 0.60


def test_training_has_as_many_rows_of_either_label(splits):
    assert Counter(row["label"] for row in splits["train"]) == {"hate": 180, "normal": 180}


def test_the_group_alone_is_no_good(splits):
    """The larger label of the row's group in training, the baseline that the report also shows."""
    train = Counter((row["group"], row["label"]) for row in splits["train"])
    majority = {g: train[g, "hate"] > train[g, "normal"] for g in generate.GROUPS}
    actual = [row["label"] == "hate" for row in splits["test"]]
    assert 0 < f1([majority[row["group"]] for row in splits["test"]], actual) < 0.56


def test_check_says_so_when_a_file_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["generate"])
    generate.main()
    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    generate.main()
    (tmp_path / "test.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match=r"test\.jsonl"):
        generate.main()
