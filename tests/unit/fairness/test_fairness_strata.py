import pytest

from service.fairness.columns import MAX_PARTS, partition
from tests.support.built_reports import META, build


@pytest.fixture(scope="module")
def table(make_predictions):
    return make_predictions(
        ["hate", "hate", "normal", "normal", "normal", "hate"],
        ["hate", "normal", "hate", "normal", "normal", "hate"],
        ["b", "a", "a", "a", None, "b"],
        [0.9, 0.2, 0.8, 0.1, 0.3, 0.7],
        sources=["x", "y", "x", "x", None, "y"],
        details=["slur", "slur", "negation", "negation", "negation", None],
    )


def test_sources_and_finer_labels_are_counted_apart(table):
    report = build(table, base=table, min_support=3)
    x, y = report.by_source
    assert (x.name, x.n, x.positives, x.negatives, x.small_sample) == ("x", 3, 1, 2, True)
    assert (x.tuned.fpr.value, x.tuned.fnr.value) == (0.5, 0)
    assert (y.name, y.n, y.small_sample) == ("y", 2, True)
    assert (y.tuned.fpr.value, y.tuned.fpr.reason) == (None, "no negative rows")
    assert y.base == y.tuned
    assert [each.name for each in report.by_detail] == ["negation", "slur"]
    assert report.by_detail[0].tuned.fpr.numerator == 1


def test_functional_results_by_finer_label_and_group(table):
    negation, slur = build(table).functional
    assert (negation.name, negation.n, negation.label) == ("negation", 3, "normal")
    assert (negation.tuned.numerator, negation.tuned.denominator) == (2, 3)
    assert negation.base is None
    assert [(cell.group, cell.n, cell.accuracy.value) for cell in negation.by_group] == [
        ("a", 2, 0.5)
    ]
    assert [(cell.group, cell.accuracy.value) for cell in slur.by_group] == [("a", 0), ("b", 1)]


def test_a_finer_label_with_rows_of_several_labels_has_none(make_predictions):
    made = make_predictions(["hate", "normal"], ["hate", "hate"], details=["d", "d"])
    report = build(made, base=made)
    assert report.functional[0].label is None
    assert report.functional[0].base.value == 0.5


def test_without_the_columns_there_are_no_strata(make_predictions):
    report = build(make_predictions(["hate", "normal"], ["hate", "normal"]))
    assert (report.by_source, report.by_detail, report.functional) == ((), (), ())
    assert report.parity is None


def test_any_name_is_a_group(make_predictions):
    names = ["", " ", "0", "a,b", "None", "=1+1", "ä\n", "<b>"]
    made = make_predictions(["hate", "normal"] * 4, ["hate", "normal"] * 4, names)
    report = build(made, validation=made)
    assert [group.group for group in report.groups] == sorted(names)
    assert all(group.n == 1 for group in report.groups)


def test_rows_belong_to_the_parts_that_they_name():
    found = partition(["b", None, "a", "b"])
    assert {name: rows.tolist() for name, rows in found.rows.items()} == {"a": [2], "b": [0, 3]}
    assert list(found.rows) == ["a", "b"]
    assert found.values == 2
    assert partition([None]).rows == {}


def test_of_too_many_parts_the_largest_and_those_asked_for_are_kept():
    names = [f"{number:04}" for number in range(MAX_PARTS + 50)]
    found = partition([*names, names[-1]], required={names[-2], "absent"})
    assert found.values == MAX_PARTS + 50
    assert list(found.rows) == [*names[: MAX_PARTS - 2], names[-2], names[-1]]


def test_a_column_of_free_text_is_cut_with_a_warning(make_predictions):
    rows = MAX_PARTS + 20
    names = [f"{number:04}" for number in range(rows)]
    made = make_predictions(
        ["hate", "normal"] * (rows // 2), ["hate"] * rows, names, details=names, sources=names
    )
    cap = {"group": names[-1], "metric": "fpr", "max": 0.5}
    report = build(made, caps=[type("Cap", (), cap)])
    for column in (report.groups, report.by_source, report.by_detail, report.functional):
        assert len(column) == MAX_PARTS
    assert report.caps[0].denominator == 1
    codes = {warning.code: warning.detail for warning in report.warnings}
    assert codes["many_groups"] == (
        "The data has 220 groups. The report includes the 200 with the most rows and those with "
        "a cap."
    )
    assert {"many_sources", "many_details"} <= set(codes)


def test_the_worst_mistakes_are_the_surest_wrong_ones_in_order(make_predictions):
    made = make_predictions(
        ["normal", "hate", "normal", "hate", "normal", "hate"],
        ["hate", "normal", "hate", "hate", "hate", "normal"],
        ["a", None, "b", "a", "a", "a"],
        [0.7, 0.05, 0.95, 0.9, 0.7, 0.3],
        ids=["z", "y", "x", "w", "v", "u"],
    )
    found = build(made).worst_mistakes
    # x and y are equally sure, and so are u, v and z: the first by id leads.
    assert [(each.id, each.score) for each in found] == [
        ("x", 0.95),
        ("y", 0.05),
        ("u", 0.3),
        ("v", 0.7),
        ("z", 0.7),
    ]
    assert (found[0].label, found[0].prediction, found[0].group) == ("normal", "hate", "b")
    assert (found[1].label, found[1].prediction, found[1].group) == ("hate", "normal", None)


def test_thirty_mistakes_are_enough(make_predictions):
    scores = [number / 100 for number in range(50, 100)]
    made = make_predictions(["normal"] * 50, ["hate"] * 50, scores=scores)
    found = build(made).worst_mistakes
    assert [each.score for each in found] == sorted(scores, reverse=True)[:30]
    tied = make_predictions(["normal"] * 50, ["hate"] * 50, scores=[0.8] * 50)
    assert [each.id for each in build(tied).worst_mistakes] == sorted(tied.ids)[:30]


def test_mistakes_are_those_under_the_headline_rule(make_predictions):
    made = make_predictions(["hate", "normal"], ["normal", "normal"], scores=[0.4, 0.3])
    given = META.model_copy(update={"threshold": "given"})
    assert [each.id for each in build(made).worst_mistakes] == ["r0"]
    (wrong,) = build(
        make_predictions(["normal", "hate"], ["normal", "hate"], scores=[0.4, 0.6]),
        meta=given,
        threshold=0.35,
    ).worst_mistakes
    assert (wrong.id, wrong.prediction) == ("r0", "hate")
