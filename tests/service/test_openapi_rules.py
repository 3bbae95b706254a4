"""What the OpenAPI document allows is accepted, and each rule for text is exactly the code's.

Values of every query parameter and of every field of a body are generated from the document. A 422
means a rule that the document lacks, unless it depends on what is stored, or on the preset, or
cannot be written as JSON Schema and is in a description: those are listed here.
"""

import json
import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.api.app import create_app
from service.settings import Settings
from tests.support.json_schemas import matches, pattern_of, values
from tests.support.trained_runs import finish, leave_adapter

STORED = (
    # what is stored, the presets and the templates
    "no such (preset|template)",
    "there is no dataset",
    "the (dataset|data|training rows|run|rows of the split) (has|have|was)",
    "has no training rows",
    "evaluation .* not found|there is no evaluation|no evaluation",
    "are chats with their own prompts",
    "requires a labelled validation split",
    "this server allows only",
    "best_f1_within_caps (compares|requires)|the checkpoint that best_f1_within_caps chooses",
)
PRESET = (
    # a field together with what the preset sets for another
    "set (exactly|at most) one of",
    "(eval|save)_strategy steps requires|_steps requires (eval|save)_strategy steps",
    "early stopping requires evaluations",
    "load_best_model_at_end requires a checkpoint at each evaluation",
    "target_parameters (are adapted without dropout|cannot be adapted)",
    "list at least one module",
)
DESCRIBED = (
    # rules that only a description states
    "a group has two caps on the same metric",
    "from 1MB to 1000GB",
    "is listed twice",
    "only csv has tables",
    "is for json; a CSV file",
    "only a single file has a link",
    "a single file is not archived",
    "the last turn must be the user's",
    "unprintable characters",  # of code points that Unicode has not assigned
)
ALLOWED = re.compile("|".join((*STORED, *PRESET, *DESCRIBED)))
QUICK = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


@pytest.fixture
def trained(run_id, worker):
    leave_adapter(worker)
    finish(worker)
    return run_id


@pytest.fixture
def paths(trained, dataset_id):
    """Identifiers for the paths of calls."""
    return {"run_id": trained, "dataset_id": dataset_id, "step": 1, "path": "run.log"} | {
        "eval_id": "eval_none", "prediction_id": "pred_none", "key_id": "key_none",
        "adapter_id": "run_none",
        "name": "toxicity", "stage": "production",
    }  # fmt: skip


def check(answer, sent):
    assert answer.status_code < 500, (answer.text, sent)
    if answer.status_code == 422:
        for error in answer.json()["errors"]:
            assert ALLOWED.search(error["detail"]), (error, sent)


def each(strategy, send):
    """Call `send` with values of the strategy."""

    @QUICK
    @given(strategy)
    def sent(value):
        send(value)

    sent()


def as_query(value):
    return json.dumps(value) if isinstance(value, bool) else value


def test_what_the_document_allows_in_a_query_is_accepted(client, document, paths):
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        url = path.format(**paths)
        parameters = operations.get("get", {}).get("parameters", ())
        query = [parameter for parameter in parameters if parameter["in"] == "query"]
        others = {p["name"]: "a,b" for p in query if p.get("required")}
        for parameter in query:

            def send(value, url=url, name=parameter["name"], others=others):
                sent = others | ({} if value is None else {name: as_query(value)})
                check(client.get(url, params=sent), (url, sent))

            each(values(parameter["schema"], schemas), send)


def bodies(document):
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {"content": {}})["content"]
            if "application/json" in content:
                yield path, content["application/json"]["schema"]


def test_what_the_document_allows_in_a_body_is_accepted(client, document, paths):
    schemas = document["components"]["schemas"]
    by_path = dict(bodies(document))
    assert len(by_path) == 8
    for path in by_path.keys() - {"/v1/runs", "/v1/runs/{run_id}/clone"}:
        url = path.format(**paths)

        def send(body, url=url):
            check(client.post(url, json=body), (url, body))

        each(values(by_path[path], schemas), send)


def test_what_the_document_allows_in_a_specification_is_accepted(client, document, paths):
    schemas = document["components"]["schemas"]
    specification = dict(bodies(document))["/v1/runs"]
    base = {"dataset_id": paths["dataset_id"], "preset": "quick_test", "base_model": "tiny"}
    clone = f"/v1/runs/{paths['run_id']}/clone?dry_run=true"
    for name, field in specification["properties"].items():

        def send(value, name=name):
            body = base | {name: value}
            check(client.post("/v1/runs?dry_run=true", json=body), body)
            changes = {} if name == "preset" else {name: value}
            check(client.post(clone, json=changes), changes)

        each(values(field, schemas), send)


# Characters around which rules differ.
ODD = st.sampled_from(
    [*" \t\n\0\x85\xa0\xad\u200b\u202e\u2028\u3000\ufeff\ue000aA019_-./@,é😀", "MB"]
)


def texts(pattern):
    odd = st.lists(ODD, max_size=6).map("".join)
    return st.one_of(st.text(max_size=8), odd, st.from_regex(pattern), st.builds(_mixed, odd, odd))


def _mixed(first, last):
    return f"{first}run_a{last}"


def is_refused(answer, pointer):
    errors = answer.json().get("errors", []) if answer.status_code == 422 else []
    return any(error["pointer"].startswith(pointer) for error in errors)


def test_the_rules_for_text_are_those_of_the_code(client, document, paths, sample):
    schemas = document["components"]["schemas"]
    run = f"/v1/runs/{paths['run_id']}"
    base = {"dataset_id": paths["dataset_id"], "preset": "quick_test", "base_model": "tiny"}
    specification = dict(bodies(document))["/v1/runs"]["properties"]
    fields = {name: schemas[name]["properties"] for name in ("KeyRequest", "MergeRequest")}
    fields["form"] = schemas["Body_create_dataset_v1_datasets_post"]["properties"]

    def query(path, name):
        parameters = document["paths"][path]["get"]["parameters"]
        return next(p["schema"] for p in parameters if p["name"] == name)

    def plan(body):
        return client.post("/v1/runs?dry_run=true", json=base | body)

    def upload(name):
        files = {"train": sample["test"], "file": sample["test"]}  # refused after the name
        return client.post("/v1/datasets", data={"name": name}, files=files)

    cases = {
        "/query/after": (
            query("/v1/runs", "after"),
            lambda text: client.get("/v1/runs", params={"after": text}),
        ),
        "/query/tag": (
            query("/v1/runs", "tag"),
            lambda text: client.get("/v1/runs", params={"tag": text}),
        ),
        "/query/runs": (
            query("/v1/compare", "runs"),
            lambda text: client.get("/v1/compare", params={"runs": text}),
        ),
        "/tags/0": (specification["tags"]["items"], lambda text: plan({"tags": [text]})),
        "/base_model": (specification["base_model"], lambda text: plan({"base_model": text})),
        "/max_shard_size": (
            fields["MergeRequest"]["max_shard_size"],
            lambda text: client.post(f"{run}/merged", json={"max_shard_size": text}),
        ),
        "/name": (
            fields["KeyRequest"]["name"],
            lambda text: client.post("/v1/keys", json={"name": text, "role": "viewer"}),
        ),
        "/name (form)": (fields["form"]["name"], upload),
    }
    for case, (schema, send) in cases.items():
        pointer = case.partition(" ")[0]

        def compare(text, schema=schema, send=send, pointer=pointer, case=case):
            answer = send(text)
            refused = is_refused(answer, pointer)
            allowed = matches(text, schema, schemas)
            if not (refused and allowed and ALLOWED.search(answer.json()["detail"])):
                assert refused != allowed, (case, text, answer.text)

        each(texts(pattern_of(schema)), compare)
