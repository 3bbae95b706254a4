"""The Python client against a real API and worker."""

import asyncio
import hashlib

import pytest

from fairtune import AsyncClient, Client, InvalidRequest, NotFound, NotReleasable
from tests.support.tiny_runs import TINY, sample


@pytest.mark.parametrize(
    "service", ["files", pytest.param("servers", marks=pytest.mark.extended)], indirect=True
)
def test_from_files_to_report(service, tmp_path):
    with Client(str(service.client.base_url)) as client:
        dataset = client.datasets.create("sample", **sample())
        assert client.datasets.get(dataset.id).stats.rows == dataset.stats.rows
        assert len(dataset.preview("test", limit=3)) == 3
        plan = client.runs.plan(dataset, **TINY)
        run = client.runs.create(dataset, **TINY)
        events = list(run.events())
        run.wait()
        assert (run.status, run.step) == ("succeeded", plan.total_steps)
        assert [event.id for event in events] == sorted({event.id for event in events})
        assert events[-1].data["status"] == "succeeded"
        assert list(run.events(follow=False)) == events
        assert list(run.events(after=events[-1].id)) == []

        assert "".join(run.follow_logs()) == run.logs()
        assert [point.step for point in run.metric_series("loss").series["loss"]] == [*range(1, 7)]
        report = run.report()
        assert [cap.group for cap in report.caps] == ["lgbtq", "mexican", "middle_east"]
        assert report.overall.tuned.f1.value == report.raw["overall"]["tuned"]["f1"]["value"]
        assert "<html" in run.report_as("html")

        evaluation = next(
            evaluation
            for evaluation in run.evaluations()
            if (evaluation.target, evaluation.split) == ("adapter", "test")
        )
        assert len(evaluation.to_pandas()) == 30
        other = evaluation.report(caps=[{"group": "lgbtq", "max": 0.9}])
        assert [cap.max for cap in other.caps] == [0.9]
        predictions = run.predict(["a text", "another text"] * 150)
        assert len(predictions) == 300
        assert {prediction.label for prediction in predictions} <= {"hate", "normal"}
        assert list(predictions.to_pandas()["text"][:2]) == ["a text", "another text"]

        run.download(tmp_path / "adapter")
        stored = {entry.path: entry.sha256 for entry in run.artifacts()}
        for file in (tmp_path / "adapter").iterdir():
            assert hashlib.sha256(file.read_bytes()).hexdigest() == stored[file.name]
        step = run.checkpoints()[0].step
        run.download(tmp_path / "checkpoint", checkpoint=step)
        merge = run.merge(dtype="float32").wait()
        merge.download(tmp_path / "merged")
        assert (tmp_path / "merged" / "model.safetensors").exists()

        with pytest.raises(NotReleasable) as refusal:
            run.promote("moderation")
        assert refusal.value.hindrances
        assert run.promote("moderation", override="a test").name == "moderation"
        assert client.promotions.get("moderation", "production").run_id == run.id
        client.promotions.withdraw("moderation", "production")
        assert next(iter(client.runs.list())).id == run.id
        with pytest.raises(InvalidRequest) as invalid:
            client.runs.create(dataset, lora={"r": -1})
        assert [error.pointer for error in invalid.value.errors] == ["/lora/r"]
        run.delete()
        with pytest.raises(NotFound):
            run.refresh()


@pytest.mark.extended
def test_the_asynchronous_client(service):
    async def drive() -> None:
        async with AsyncClient(str(service.client.base_url)) as client:
            dataset = await client.datasets.create("sample", **sample())
            run = await client.runs.create(dataset, **TINY)
            kinds = [event.type async for event in run.events()]
            assert kinds[0] == kinds[-1] == "status"
            await run.wait()
            predictions = await run.predict(["a text"])
            assert len(predictions) == 1
            assert [entry.id async for entry in client.runs.list()] == [run.id]

    asyncio.run(drive())
