"""Rows that the model has seen: what the report says of them, and its verdicts without them."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.row_keys import KeyedRow, SeenRows, seen_rows
from tests.support.built_reports import META, build

TEXT = st.text("ab \n", max_size=3)
ROWS = st.lists(st.tuples(TEXT, st.sampled_from(["train", "validation", "test"])), max_size=20)


def texts(prefix, rows):
    return [KeyedRow(f"{prefix}{n}", split, text, None) for n, (text, split) in enumerate(rows)]


def chats(prefix, rows):
    return [
        KeyedRow(
            f"{prefix}{n}",
            split,
            None,
            [
                {"role": "system", "content": "Is it hate?"},
                {"role": "user", "content": text},
                {"role": "assistant", "content": "yes"},
            ],
        )
        for n, (text, split) in enumerate(rows)
    ]


@settings(deadline=None)
@given(
    ROWS, ROWS, st.sampled_from([(texts, texts), (chats, chats), (texts, chats), (chats, texts)])
)
def test_seen_rows_are_those_with_a_text_of_the_run_in_any_dataset(evaluated, learned, kinds):
    """Against every pair of rows, compared one by one."""
    seen = seen_rows(
        kinds[0]("e", evaluated), "test", kinds[1]("l", learned), same_kind=kinds[0] is kinds[1]
    )

    def among(split):
        return {text.strip() for text, of in learned if of == split}

    for n, (text, split) in enumerate(evaluated):
        in_training = split == "test" and text.strip() in among("train")
        in_validation = split == "test" and text.strip() in among("validation")
        assert (f"e{n}" in seen.in_training) == in_training
        assert (f"e{n}" in seen.in_validation) == (in_validation and not in_training)


def test_chats_are_compared_with_all_they_ask():
    one, other = chats("a", [("hello", "test")]), chats("b", [("hello", "train")])
    other[0].turns[0]["content"] = "Is it rude?"
    assert seen_rows(one, "test", other, same_kind=True).in_training == frozenset()


@pytest.fixture
def table(make_predictions):
    """Ten rows of each class, all of them right but the last hateful ones (r18, r19)."""
    labels = ["normal"] * 10 + ["hate"] * 10
    return make_predictions(labels, ["normal"] * 10 + ["hate"] * 8 + ["normal"] * 2, ["a"] * 20)


def seen(training=(), validation=()):
    return SeenRows(frozenset(f"r{n}" for n in training), frozenset(f"r{n}" for n in validation))


def warnings(report):
    return {warning.code: warning.detail for warning in report.warnings}


def test_some_seen_rows_are_counted_and_the_verdicts_given_without_them(table):
    caps = [SimpleNamespace(group="a", metric="fnr", max=0.6)]
    report = build(table, caps=caps, min_f1=0.85, seen=seen(range(10, 16), [16]))
    assert (report.data.seen_in_training, report.data.seen_in_validation) == (6, 1)
    assert warnings(report)["seen_in_training"].startswith(
        "6 of 20 rows have a text that the model was trained on: "
    )
    assert warnings(report)["seen_in_validation"].startswith("1 of 20 rows has a text that is ")
    assert "the other 13 rows" in warnings(report)["seen_in_training"]
    assert (report.caps_verdict, report.min_f1.verdict) == ("pass", "met")
    unseen = report.unseen
    assert (unseen.rows, unseen.f1.value) == (13, pytest.approx(0.5))
    (cap,) = unseen.caps
    assert (cap.numerator, cap.denominator, cap.verdict) == (2, 3, "inconclusive")
    assert (unseen.caps_verdict, unseen.min_f1.verdict) == ("inconclusive", "not_met")


@pytest.mark.parametrize(
    ("split", "rows", "sentence"),
    [
        ("train", {"training": range(20)}, "the model was trained on these rows"),
        ("validation", {"validation": range(20)}, "may have been chosen on these rows"),
        ("train", {}, None),  # of a dataset that the model has never seen
        ("validation", {}, None),
        ("test", {}, None),
    ],
)
def test_only_rows_that_the_model_saw_are_said_to_be_seen(table, split, rows, sentence):
    meta = META.model_copy(update={"split": split})
    report = build(table, meta=meta, seen=seen(**rows))
    details = " ".join(warnings(report).values())
    if sentence is None:
        assert "trained on" not in details
        assert "chosen on" not in details
        assert report.unseen is None
    else:
        assert f"This is the {split} split: " in details
        assert sentence in details
        assert report.unseen.rows == 0


def test_without_an_unseen_row_no_verdicts_on_such_rows_are_promised(table):
    report = build(table, seen=seen(range(10), range(10, 20)))
    details = warnings(report)
    for code in ("seen_in_training", "seen_in_validation"):
        assert details[code].endswith("better than on unseen rows. No row is unseen.")


def test_what_is_not_known_is_hedged(table):
    report = build(table, meta=META.model_copy(update={"split": "train"}))
    assert "may have been trained on these rows" in warnings(report)["not_certifying_split"]
