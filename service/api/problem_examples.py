"""Example errors for the OpenAPI document: for each operation the errors that it really returns.

Each is an instance of the error's own class, so that type, title and status cannot differ from the
service's answers.
"""

from typing import Any

from service.api.dependencies import unknown_parameter
from service.api.middleware import auth, body_limit, local_only
from service.api.responses.files import range_refusal
from service.api.responses.negotiation import not_acceptable
from service.domain.access import Caller, Role
from service.domain.adapter_config import MERGE_FIRST
from service.domain.errors import (
    BadRequest,
    Busy,
    Conflict,
    FairtuneError,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReleasable,
    PayloadTooLarge,
    QuotaExceeded,
    RangeNotSatisfiable,
    RequestTimeout,
    Unauthorized,
    Unavailable,
)
from service.domain.release import Hindrance
from service.settings import Settings

RUN_ID = "run_01jz8x0m3c9v5k2q7w4t6y8n1a"
_JOB_ID = "job_01jz8x0m3c9v5k2q7w4t6y8n1a"
IDS = {
    "run_id": RUN_ID,
    "adapter_id": RUN_ID,
    "dataset_id": "ds_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "eval_id": "eval_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "prediction_id": "pred_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "merge_id": "merge_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "key_id": "key_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "step": "90",
    "path": "adapter_model.safetensors",
    "name": "hate-en",
    "stage": "production",
}
"""Values of path parameters in the examples."""

UNKNOWN_PARAMETER = "verbose"
_DECLARE_LABELS = "declare other labels in mapping.labels"
_AT_LEAST_1 = "must be at least 1"
_NO_MERGE = f"run {RUN_ID} has no merge; POST /v1/runs/{RUN_ID}/merged makes one"

# By the end of the path, the most specific first.
_NOT_FOUND = {
    "/v1/datasets/{dataset_id}": f"there is no dataset {IDS['dataset_id']!r}",
    "/v1/adapters/{adapter_id}": f"there is no imported adapter {RUN_ID!r}",
    "/v1/keys/{key_id}": f"there is no API key {IDS['key_id']!r}",
    "/v1/promotions/{name}/{stage}": f"no run has the name {IDS['name']}@{IDS['stage']}",
    "/checkpoints/{step}": f"run {RUN_ID} has no checkpoint at step {IDS['step']}",
    "/artifacts/{path}": f"run {RUN_ID} has no file {IDS['path']!r}; GET …/artifacts lists them",
    "/evaluations/{eval_id}": f"run {RUN_ID} has no evaluation {IDS['eval_id']!r}",
    "/predictions/{prediction_id}": f"run {RUN_ID} has no predictions {IDS['prediction_id']!r}",
    "GET /v1/runs/{run_id}/merged": _NO_MERGE,
    "POST /v1/runs/{run_id}/merged/cancel": _NO_MERGE,
    "DELETE /v1/runs/{run_id}/merged": f"run {RUN_ID} has no merge {IDS['merge_id']!r}",
    "/v1/runs/{run_id}": f"there is no run {RUN_ID!r}",
    "/v1/compare": f"there is no run {RUN_ID!r}",
}
"""Details of 404, by a part of the operation; the first match counts."""

_CONFLICTS = {
    "POST /v1/runs/{run_id}/cancel": "the run has already succeeded; there is nothing to cancel",
    "POST /v1/runs/{run_id}/pause": "the run has already succeeded; there is nothing to pause",
    "POST /v1/runs/{run_id}/resume": "the run has failed; POST …/retry starts it again",
    "POST /v1/runs/{run_id}/retry": "only a failed run can be retried; this one is queued: there "
    "is nothing to retry",
    "DELETE /v1/adapters/{adapter_id}": f"the merge job {_JOB_ID} of the run is running: cancel it "
    "and wait until it has stopped",
    "DELETE /v1/runs/{run_id}": "the run is running: cancel it and wait until it has stopped",
    "DELETE /v1/runs/{run_id}/merged": f"the merge {IDS['merge_id']} is running: cancel it and "
    "wait until it has stopped",
    "DELETE /v1/datasets/{dataset_id}": f"the dataset is used by the run {RUN_ID}; delete "
    "runs first",
    "POST /v1/runs/{run_id}/promote": "the run is queued; only a succeeded run can be promoted",
    "GET /v1/runs/{run_id}/predictions/{prediction_id}": f"the scores of {IDS['prediction_id']} "
    "are damaged; request the predictions again",
    "GET /v1/runs/{run_id}/adapter/download": "the run is queued and has no final adapter; see GET "
    "…/checkpoints",
    "GET /v1/runs/{run_id}/bias-report": "the run is queued; its report is written at the end",
    "POST /v1/runs/{run_id}/evaluations": "the run is queued and has no adapter, which is "
    "written at its end; evaluate a checkpoint or the base model",
    "POST /v1/runs/{run_id}/predictions": "the run is queued and has no adapter, which is "
    "written at its end; use a checkpoint, or wait for the adapter",
    "POST /v1/runs/{run_id}/merged": "the run is queued and has no adapter, which is written at "
    "its end; merge a checkpoint, or wait for the adapter",
    "POST /v1/runs/{run_id}/merged/cancel": "the merge has already succeeded; there is nothing to "
    "cancel",
    "GET /v1/runs/{run_id}/merged/download": f"the merge {IDS['merge_id']} is running; its model "
    "comes at its end",
    "POST /v1/runs/{run_id}/evaluations/{eval_id}/cancel": "this evaluation is part of the run "
    "itself; there is nothing to cancel",
    "GET /v1/runs/{run_id}/evaluations/{eval_id}/predictions": f"the evaluation {IDS['eval_id']} "
    "is running; its predictions come at its end",
    "POST /v1/runs/{run_id}/evaluations/{eval_id}/reports": f"the evaluation {IDS['eval_id']} is "
    "running; its predictions come at its end",
    "POST /v1/runs/{run_id}/predictions/{prediction_id}/cancel": "the prediction has already "
    "succeeded; there is nothing to cancel",
    "POST /v1/keys": "this would be the first key, and from then on every call requires one: "
    "create an admin key without an expiry first",
    "GET /v1/compare": f"run {RUN_ID} is queued and has no bias report; set a split that its "
    "adapter was evaluated on, or use one of its checkpoints as RUN@STEP",
}

_INVALID = {
    "POST /v1/datasets": (
        "/train/lines/17/label",
        "'hat' is not one of the labels 'hate', 'normal'; " + _DECLARE_LABELS,
    ),
    "POST /v1/adapters": (
        "/file/adapter_config.json/peft_type",
        f"is 'ADALORA', and only LORA adapters are supported: {MERGE_FIRST}",
    ),
    "POST /v1/runs": ("/lora/r", _AT_LEAST_1),
    "POST /v1/runs/{run_id}/clone": ("/lora/r", _AT_LEAST_1),
    "POST /v1/runs/{run_id}/evaluations": ("/max_samples", _AT_LEAST_1),
    "POST /v1/runs/{run_id}/predictions": ("/texts", "must have at least 1 item"),
    "POST /v1/runs/{run_id}/promote": ("/name", "is missing"),
    "POST /v1/keys": ("/name", "is missing"),
}
"""Invalid fields and details of 422; elsewhere an unknown query parameter is the example."""

_LIMITED = {
    "POST /v1/datasets": "uploads",
    "POST /v1/adapters": "uploads",
    "report": "reports and comparisons",
    "/v1/compare": "reports and comparisons",
    "GET ": "large reads",
}
"""Subjects of 503 with the type busy, by a part of the operation; the first match counts."""

_UNACCEPTABLE = {"/v1/compare": ("json", "html"), "/v1/runs/{run_id}/metrics": ("json", "csv")}
"""Formats that 406 lists; elsewhere all of them."""

_CAP_NOT_MET = Hindrance(
    kind="cap",
    detail="the cap on fpr of lgbtq (0.4) is inconclusive: 0.31",
    group="lgbtq",
    metric="fpr",
    limit=0.4,
    observed=0.31,
    verdict="inconclusive",
    needed_further=62,
    would_settle="pass",
)


def errors_of(
    method: str, path: str, operation: dict[str, Any], status: int
) -> list[FairtuneError]:
    """Return the errors that this operation answers with `status`."""
    call = f"{method.upper()} {path}"
    content = operation.get("requestBody", {}).get("content", {})
    is_upload = "multipart/form-data" in content
    match status:
        case 400:
            return [_bad_request(is_json="application/json" in content)]
        case 401:
            return [Unauthorized(auth.NO_KEY)]
        case 403:
            return [_forbidden(method.upper(), path)]
        case 404:
            return [NotFound(_first_match(_NOT_FOUND, call))]
        case 406:
            return [not_acceptable(_UNACCEPTABLE.get(path, ("json", "html", "csv")))]
        case 408:
            seconds = Settings.model_fields["request_timeout_seconds"].default
            return [RequestTimeout(body_limit.too_slow(seconds, is_upload=is_upload))]
        case 409:
            return _conflicts(call)
        case 413:
            field = body_limit.limit_setting(is_upload=is_upload)
            return [
                PayloadTooLarge(body_limit.too_large(Settings.model_fields[field].default, field))
            ]
        case 416:
            return [RangeNotSatisfiable(range_refusal(3_712_904, "bytes=3712904-"))]
        case 422:
            return [_invalid(call, operation)]
        case 503:
            return _unavailable(call, operation["responses"]["503"]["description"])
        case 507:
            return [
                QuotaExceeded(
                    "the artifact store holds 53687091200 bytes and its quota is 53687091200: "
                    "delete runs (DELETE /v1/runs/{id}), or raise FAIRTUNE_STORE_QUOTA_BYTES"
                )
            ]
    raise LookupError(f"no example of {status} for {call}")


def _first_match(details: dict[str, str], call: str) -> str:
    return next((detail for part, detail in details.items() if part in call), "Not Found")


def _bad_request(*, is_json: bool) -> BadRequest:
    if is_json:
        return BadRequest("the body is not JSON: the object is never closed (line 1, column 2)")
    return local_only.proxied("x-forwarded-for")


def _forbidden(method: str, path: str) -> Forbidden:
    needed = auth.needed_role(method, path) or Role.VIEWER
    if needed is Role.VIEWER:  # every key has this role
        return Forbidden("the key's role does not permit this call")
    return auth.forbidden(needed, Caller(IDS["key_id"], "dashboard", Role.VIEWER))


def _conflicts(call: str) -> list[FairtuneError]:
    conflict = Conflict(_CONFLICTS.get(call, "the state of the resource forbids this call"))
    if call != "POST /v1/runs/{run_id}/promote":
        return [conflict]
    detail = (
        f"the run is not promoted to hate-en@production: {_CAP_NOT_MET.detail}. To promote it "
        'anyway, send "override": {"reason": "…"}, which is stored with the promotion'
    )
    return [conflict, NotReleasable(detail, [_CAP_NOT_MET])]


def _invalid(call: str, operation: dict[str, Any]) -> InvalidRequest:
    if call in _INVALID:
        pointer, detail = _INVALID[call]
        return InvalidRequest(f"{pointer}: {detail}", (FieldError(pointer, detail),))
    names = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
    return unknown_parameter(UNKNOWN_PARAMETER, names)


def _unavailable(call: str, description: str) -> list[FairtuneError]:
    unavailable = Unavailable("the database cannot be reached or is busy")
    if Busy.type not in description:
        return [unavailable]
    limited = _first_match(_LIMITED, call)
    detail = f"the limit of concurrent {limited} is reached; retry in {Busy.retry_after} s"
    return [unavailable, Busy(detail)]
