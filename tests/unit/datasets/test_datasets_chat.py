"""Chats: what is read of them, each label's answer, and answers that are odd."""

import pytest

from service.datasets.rows import Message, read_rows


def codes(built):
    return {warning.code: warning for warning in built.warnings}


def test_chats_keep_their_turns(make, chat):
    turns = chat("q", "a", system="")
    turns[1]["name"] = None
    built = make({"train": [{"messages": turns, "group": "g", "text": "not read"}]})
    (row,) = read_rows(built.path)
    assert row.messages == (Message("system", ""), Message("user", "q"), Message("assistant", "a"))
    assert (row.text, row.label, row.group) == (None, None, "g")
    assert built.stats.kind == "messages"
    assert built.stats.text_length.max == 2
    assert built.completions is None
    assert set(codes(built)) == {"no_labels", "unread_columns"}


def test_a_label_means_its_most_common_answer_in_train(make, chat):
    def row(user, answer, label):
        return {"messages": chat(user, answer), "label": label, "group": "g"}

    train = [
        row("1", "rare", "hate"),
        row("2", "yes", "hate"),
        row("3", "yes", "hate"),
        row("4", "no", "normal"),
    ]
    test = [row(str(n), "only here", "hate") for n in range(10, 20)]
    built = make({"train": train, "test": test})
    assert built.completions == {"hate": "yes", "normal": "no"}
    warning = codes(built)["several_completions"]
    assert (warning.code, warning.count) == ("several_completions", 1)
    assert warning.detail == (
        "The label 'hate' has 2 different assistant turns in train. "
        "Scoring uses the most common one (2 of 3 rows)."
    )


def test_of_equally_common_answers_the_first_is_taken(make, chat):
    rows = [
        {"messages": chat("1", "b"), "label": "hate"},
        {"messages": chat("2", "a"), "label": "hate"},
        {"messages": chat("3", "no"), "label": "normal"},
    ]
    assert make({"train": rows}).completions == {"hate": "b", "normal": "no"}


def test_answers_of_another_label_are_counted_in_every_split(make, chat):
    def row(user, answer, label):
        return {"messages": chat(str(user), answer), "label": label, "group": "g"}

    train = [
        *(row(number, "BAD", "hate") for number in range(3)),
        *(row(number, "GOOD", "normal") for number in range(10, 13)),
        row(20, "GOOD", "hate"),
        row(21, " BAD\n", "normal"),
    ]
    test = [row(30, "BAD", "normal"), row(31, "GOOD", "hate"), row(32, "BAD", "hate")]
    warnings = codes(make({"train": train, "test": test, "validation": [row(40, "BAD", "hate")]}))
    assert warnings["contradicting_answers"].count == 4
    assert warnings["contradicting_answers"].detail == (
        "4 rows have the assistant turn of another label (train 2, test 2): correct the label or "
        "the turn."
    )
    assert "several_completions" in warnings  # ' BAD\n' is a different turn
    del train[-1]
    assert "several_completions" not in codes(make({"train": train}))
    del train[-1]
    assert "contradicting_answers" not in codes(make({"train": train}))


def test_weights_and_names_of_messages(make):
    def chat(number, *turns):
        messages = [{"role": "user", "content": f"post {number}"}, *turns]
        return {"messages": messages, "label": ("hate", "normal")[number % 2]}

    answers = [{"role": "assistant", "content": word} for word in ("BAD", "GOOD")]
    earlier = {"role": "assistant", "content": "hm"}
    question = {"role": "user", "content": "so?", "name": "ann"}
    rows = [
        chat(0, earlier | {"weight": 0}, question, answers[0] | {"weight": 1}),
        chat(1, earlier | {"weight": 0.0}, question, answers[1] | {"weight": 1.0}),
        chat(2, earlier | {"weight": 1}, question | {"name": None}, answers[0]),
        chat(3, answers[1] | {"weight": None}),
        chat(4, earlier, question | {"weight": 0}, answers[0]),
    ]
    built = make({"train": rows})
    weights = [[turn.weight for turn in row.messages or ()] for row in read_rows(built.path)]
    assert weights == [[1, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [1, 1], [1, 1, 0, 1]]
    assert built.stats.zero_weight_rows == 3
    warnings = codes(built)
    assert (warnings["ignored_names"].count, warnings["ignored_weights"].count) == (3, 1)
    assert warnings["ignored_weights"].detail.startswith(
        "1 chat has weight 1 on an earlier message"
    )


@pytest.mark.parametrize("on_invalid", ["refuse", "drop"])
def test_two_labels_with_one_answer_are_refused(refuse, chat, on_invalid):
    rows = [{"messages": chat(label, "yes"), "label": label} for label in ("hate", "normal")]
    error = refuse({"train": rows}, on_invalid=on_invalid)
    assert error.errors[0].pointer == "/train"
    assert "'hate' and 'normal' have the same most common assistant turn" in error.detail


def test_one_label_and_mixed_labels_are_refused_in_chats_too(refuse, chat):
    rows = [{"messages": chat(str(n)), "label": "hate"} for n in range(2)]
    assert "a classifier needs at least two labels" in refuse({"train": rows}).detail
    error = refuse({"train": [*rows, {"messages": chat("3")}]})
    assert error.errors[0].pointer == "/train/lines/3/label"


def test_braces_that_were_never_undone_are_counted(make, chat):
    answers = [
        '{{"classification": "not_hate"}}',
        ' {{"a": 1}}\n',
        '{"classification": "hate_speech"}',
        '{"a": {"b": 1}}',
        '{"a": 1',
        "{{",
        "yes {{x}}",
    ]
    rows = [{"messages": chat(str(n), answer)} for n, answer in enumerate(answers)]
    found = codes(make({"train": rows}))
    assert found["doubled_braces"].count == 2
    assert found["doubled_braces"].detail.startswith(
        "2 of 7 assistant turns have doubled braces, as in {{…}}: that is not JSON"
    )
    assert found["invalid_json"].count == 2


def test_chats_are_compared_without_their_last_turn(make, chat):
    rows = [
        {"messages": chat("q", "yes"), "label": "hate"},
        {"messages": chat("q", "no"), "label": "normal"},
        {"messages": chat("other", "no"), "label": "normal"},
    ]
    stats = make({"train": rows, "test": [{"messages": chat(" q", "yes"), "label": "hate"}]}).stats
    assert (stats.repeated_rows, stats.shared_rows) == (1, {"test": 1})
    assert stats.conflicting_rows == 3
