"""Python client of Fairtune: fine-tune classifiers and read their bias reports.

    from fairtune import Client

    client = Client()
    dataset = client.datasets.create("posts", train="train.jsonl", test="test.jsonl")
    run = client.runs.create(dataset, preset="quick_test", base_model="smollm2-135m-instruct")
    run.wait(progress=True)
    for cap in run.report().caps:
        print(cap.group, cap.metric, cap.observed, cap.verdict)

`AsyncClient` has the same methods as coroutines. It needs httpx and nothing else.
"""

from fairtune._async.client import AsyncClient
from fairtune._async.jobs import AsyncEvaluation, AsyncMerge, AsyncPredictions
from fairtune._async.resources import AsyncDataset
from fairtune._async.run import AsyncRun
from fairtune._predictions import PredictionList
from fairtune._report import Report
from fairtune._sync.client import Client
from fairtune._sync.jobs import Evaluation, Merge, Predictions
from fairtune._sync.resources import Dataset
from fairtune._sync.run import Run
from fairtune._version import __version__
from fairtune.errors import (
    BadRequest,
    Conflict,
    DownloadFailed,
    FairtuneError,
    Forbidden,
    InvalidRequest,
    InvalidResponse,
    JobFailed,
    NotFound,
    NotReleasable,
    PayloadTooLarge,
    ProblemError,
    QuotaExceeded,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)

__all__ = [
    "AsyncClient",
    "AsyncDataset",
    "AsyncEvaluation",
    "AsyncMerge",
    "AsyncPredictions",
    "AsyncRun",
    "BadRequest",
    "Client",
    "Conflict",
    "Dataset",
    "DownloadFailed",
    "Evaluation",
    "FairtuneError",
    "Forbidden",
    "InvalidRequest",
    "InvalidResponse",
    "JobFailed",
    "Merge",
    "NotFound",
    "NotReleasable",
    "PayloadTooLarge",
    "PredictionList",
    "Predictions",
    "ProblemError",
    "QuotaExceeded",
    "Report",
    "Run",
    "ServerUnreachable",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
    "__version__",
]
