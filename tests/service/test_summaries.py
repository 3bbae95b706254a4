"""Lists in short: without specifications and statistics, with the same items and pages."""

import pytest

from service.api.schemas.summaries import SUMMARY_TYPE


@pytest.mark.parametrize("path", ["/v1/runs", "/v1/datasets"])
def test_a_list_in_short_has_the_same_items_in_a_fraction_of_the_bytes(
    client, dataset_id, sample, path
):
    for number in range(5):
        body = {"dataset_id": dataset_id, "base_model": "tiny", "tags": [f"t{number}"]}
        assert client.post("/v1/runs", json=body).status_code == 201
        client.post("/v1/datasets", data={"name": f"d{number}"}, files=sample)
    whole = client.get(path, params={"limit": 3})
    short = client.get(path, params={"limit": 3, "view": "summary"})
    assert whole.headers["Content-Type"] == "application/json"
    assert short.headers["Content-Type"] == SUMMARY_TYPE
    page, summary = whole.json(), short.json()
    assert [item["id"] for item in summary["data"]] == [item["id"] for item in page["data"]]
    assert (summary["has_more"], summary["next"]) == (page["has_more"], page["next"])
    assert len(short.content) < len(whole.content) / 2
    for item, full in zip(summary["data"], page["data"], strict=True):
        assert item.keys().isdisjoint({"spec", "stats", "metrics"})
        assert all(item[name] == full[name] for name in ("id", "name", "created_at"))
        if path == "/v1/runs":
            assert item["dataset_id"] == full["spec"]["dataset_id"]
            assert (item["tags"], item["percent"]) == (full["spec"]["tags"], full["percent"])
            assert (item["status"], item["failure_reason"]) == ("queued", None)
        else:
            assert item["rows"] == {"train": 360, "validation": 120, "test": 300}
    rest = client.get(path, params={"view": "summary", "after": summary["next"]})
    assert rest.json()["data"]
    assert client.get(path, params={"view": "short"}).status_code == 422


def test_the_document_describes_both(client):
    document = client.get("/openapi.json").json()
    for path in ("/v1/runs", "/v1/datasets"):
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        assert set(content) == {"application/json", SUMMARY_TYPE}
        # Tools compare types without their parameters.
        assert len({name.partition(";")[0] for name in content}) == 2
        text = str(content[SUMMARY_TYPE])
        for reference in text.split("#/components/schemas/")[1:]:
            assert reference.partition("'")[0] in document["components"]["schemas"]
