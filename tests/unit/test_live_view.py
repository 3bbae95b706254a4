"""The live view of a run, without a server."""

import io
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fairtune.models import EventView
from service.cli.live_view import LiveView, sparkline
from service.cli.run_events import line_of

BLOCKS = "▁▂▃▄▅▆▇█"
NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=1, max_size=300), st.integers(1, 80))
def test_a_sparkline_fits_and_reaches_from_the_lowest_to_the_highest_mean(values, width):
    line = sparkline(values, width, BLOCKS)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(BLOCKS)
    if len(values) <= width and min(values) < max(values):
        assert line[values.index(max(values))] == BLOCKS[-1]
        assert line[values.index(min(values))] == BLOCKS[0]


def event(number, kind, **data):
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return EventView(id=number, type=kind, job_id="job_1", created_at=time, data=data)


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(), max_size=3))
def test_no_text_of_an_event_controls_the_terminal(text, data):
    for kind, content in (
        ("log", {"message": text}),
        ("warning", {"code": "x", "detail": text}),
        ("metrics", {"step": 1, "values": {f"eval_fpr/{text}": 0.5}}),
        ("anything new", data),
    ):
        assert line_of(event(1, kind, **content)).isprintable()


def run(**values):
    class Run:
        status = "running"
        phase = "training"
        requested = queue_position = eta_seconds = started_at = None
        percent, step, total_steps, epoch, samples_per_second = 50.0, 6, 12, 1.0, 3.0
        id, name = "run_1", "a\x1b[31m run"

        class spec:  # noqa: N801
            class fairness:  # noqa: N801
                caps = ()

    for name, value in values.items():
        setattr(Run, name, value)
    return Run


def shown(view, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    view._console = Console(file=file, width=100, markup=False)
    view._console.print(view)
    file.seek(0)
    return file.read()


def test_steps_behind_a_rewind_are_forgotten():
    view = LiveView(Console())
    view.update(run())
    metrics = [event(n, "metrics", step=n, values={"loss": 10.0 - n}) for n in range(1, 9)]
    evaluation = event(9, "metrics", step=8, values={"eval_loss": 1.0, "eval_fpr/a": 0.25})
    view.add([*metrics, evaluation])
    assert "loss   █" in shown(view)
    assert "FPR a" in shown(view)
    view.add([event(10, "rewound", step=4)])
    text = shown(view)
    assert "lowest 6" in text
    assert "FPR a" not in text
    assert "\x1b[31m" not in text


def test_a_terminal_without_unicode_gets_ascii():
    view = LiveView(Console())
    view.update(run())
    view.add([event(n, "metrics", step=n, values={"loss": 1.0 / n}) for n in range(1, 9)])
    text = shown(view, "ascii")
    assert "> training" in text
    assert text.isascii()
