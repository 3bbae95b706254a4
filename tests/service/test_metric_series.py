"""GET /v1/runs/{id}/metrics: windows, thinning and pages of long series; storing them."""

import csv
import io
import random
import tracemalloc

import pytest
from sqlalchemy import event

from service.ops.capacity_limiter import CapacityLimiter
from service.store import metrics
from service.store.metrics import Point
from service.usecases import metric_series
from service.usecases.metric_series import thin

pytestmark = pytest.mark.both_databases


def fill(context, worker, points: int, name: str = "loss", spike: int | None = None) -> None:
    current = worker.current
    rows = [
        {
            "run_id": current.run_id,
            "name": name,
            "step": step,
            "epoch": step / 100,
            "value": 99.5 if step == spike else 1 / step,
            "job_id": current.job_id,
            "token": current.token,
        }
        for step in range(1, points + 1)
    ]
    with context.database.write() as session:
        metrics.put(session, rows)


def test_a_short_series_is_whole(client, context, worker, run_id):
    fill(context, worker, 5)
    answer = client.get(f"/v1/runs/{run_id}/metrics").json()
    assert [point["step"] for point in answer["series"]["loss"]] == [1, 2, 3, 4, 5]
    assert answer["stored_points"] == {"loss": 5}
    assert (answer["thinned"], answer["next_step"]) == (False, None)


def test_a_long_series_is_thinned_and_says_so(client, context, worker, run_id):
    fill(context, worker, 7001, spike=4242)
    fill(context, worker, 3, "eval_loss")
    answer = client.get(f"/v1/runs/{run_id}/metrics").json()
    loss = answer["series"]["loss"]
    assert 900 <= len(loss) <= 1000
    steps = [point["step"] for point in loss]
    assert (steps[0], steps[-1]) == (1, 7001)
    assert steps == sorted(set(steps))
    assert max(loss, key=lambda point: point["value"]) == {
        "step": 4242,
        "epoch": 42.42,
        "value": 99.5,
    }
    assert len(answer["series"]["eval_loss"]) == 3
    assert answer["stored_points"] == {"eval_loss": 3, "loss": 7001}
    assert answer["thinned"] is True
    few = client.get(f"/v1/runs/{run_id}/metrics", params={"max_points": 10}).json()
    assert len(few["series"]["loss"]) == 10
    assert 99.5 in [point["value"] for point in few["series"]["loss"]]


def test_a_window_holds_the_points_of_its_steps(client, context, worker, run_id):
    fill(context, worker, 2000)
    window = {"from_step": 500, "to_step": 502}
    answer = client.get(f"/v1/runs/{run_id}/metrics", params=window).json()
    assert [point["step"] for point in answer["series"]["loss"]] == [500, 501, 502]
    assert (answer["stored_points"], answer["thinned"]) == ({"loss": 3}, False)
    text = client.get(f"/v1/runs/{run_id}/metrics", params={**window, "format": "csv"}).text
    assert [row["step"] for row in csv.DictReader(io.StringIO(text))] == ["500", "501", "502"]


def test_pages_hold_every_point_once(client, context, worker, run_id):
    fill(context, worker, 25)
    fill(context, worker, 7, "eval_loss")
    pages, start = [], 0
    while start is not None:
        params = {"limit": 10, "from_step": start}
        page = client.get(f"/v1/runs/{run_id}/metrics", params=params).json()
        assert all(len(points) <= 10 for points in page["series"].values())
        pages += [(name, p["step"]) for name, points in page["series"].items() for p in points]
        start = page["next_step"]
    expected = [("loss", step) for step in range(1, 26)]
    assert sorted(pages) == [("eval_loss", step) for step in range(1, 8)] + expected


def test_a_csv_file_holds_every_point(client, context, worker, run_id, monkeypatch):
    monkeypatch.setattr(metrics, "_PAGE", 7)
    fill(context, worker, 3000, spike=17)
    fill(context, worker, 14, "eval_loss")
    answer = client.get(f"/v1/runs/{run_id}/metrics", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 3014
    assert rows[14 + 16] == {"name": "loss", "step": "17", "epoch": "0.17", "value": "99.5"}
    for option in ("limit", "max_points"):
        params = {"format": "csv", option: 10}
        refused = client.get(f"/v1/runs/{run_id}/metrics", params=params)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == f"/query/{option}"


def test_large_reads_take_turns(client, run_id, monkeypatch):
    monkeypatch.setattr(metric_series, "LARGE_READS", CapacityLimiter("large reads", 0, 0, 0))
    answer = client.get(f"/v1/runs/{run_id}/metrics")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:busy")
    assert int(answer.headers["Retry-After"]) > 0


def test_an_unknown_run_is_not_found(client, run_id):
    for form in ("json", "csv"):
        params = {"format": form}
        assert client.get("/v1/runs/run_none/metrics", params=params).status_code == 404
        assert client.get(f"/v1/runs/{run_id}/metrics", params=params).status_code == 200


def test_thinning_keeps_ends_and_extremes_of_any_series():
    generator = random.Random(7)
    for _ in range(300):
        count, most = generator.randint(1, 400), generator.randint(4, 60)
        points = [
            Point("loss", step * 3, 0.0, float(generator.randint(-50, 50))) for step in range(count)
        ]
        kept = list(thin(points, count, most))
        assert len(kept) <= most
        assert kept == sorted(set(kept), key=lambda point: point.step)
        assert set(kept) <= set(points)
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        values = [point.value for point in points]
        assert {min(values), max(values)} <= {point.value for point in kept}
        if count <= most:
            assert kept == points


def test_thinning_holds_a_section_in_memory():
    tracemalloc.start()
    try:
        points = (Point("loss", step, 0.0, float(step)) for step in range(200_000))
        assert len(list(thin(points, 200_000, 100))) == 100
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_batch_of_metrics_takes_one_statement(context, worker):
    statements = []

    def count(_connection, _cursor, statement, *_):
        if "metric" in statement:
            statements.append(statement)

    lines = [
        worker.line(type="metrics", step=step, epoch=0.1, values={"loss": 1.0, "lr": 0.1})
        for step in range(1, 101)
    ]
    event.listen(context.database.engine, "before_cursor_execute", count)
    worker.ship(*lines)
    event.remove(context.database.engine, "before_cursor_execute", count)
    assert len([one for one in statements if "INTO metric" in one]) == 1
    assert len([one for one in statements if "FROM metric" in one]) == 0


def test_within_a_batch_a_point_is_replaced_and_a_rewind_deletes(client, run_id, worker):
    def line(step, value):
        return worker.line(type="metrics", step=step, epoch=0.5, values={"loss": value})

    worker.ship(line(1, 1.0), line(2, 2.0), line(2, 2.5), line(3, 3.0))
    worker.ship(
        line(4, 4.0),
        worker.line(type="rewound", step=1),
        line(2, 20.0),
        line(2, 21.0),
    )
    points = client.get(f"/v1/runs/{run_id}/metrics").json()["series"]["loss"]
    assert [(point["step"], point["value"]) for point in points] == [(1, 1.0), (2, 21.0)]
