"""Texts on which a merged model is compared with an adapter that was imported without a dataset."""

import json
from importlib import resources
from io import BytesIO
from itertools import islice
from pathlib import Path

from service.context import Context
from service.datasets.build import build
from service.store import datasets as dataset_store
from service.usecases.datasets import store_built

NAME = "built-in texts for comparing merged models"
_TEXTS = 64


def reference_dataset(context: Context, folder: Path) -> str:
    """Return the id of the dataset of these texts, which all such adapters share.

    The rows have no labels: nothing can be measured on them. `folder` is for temporary files.
    """
    built = build({"test": BytesIO(_rows())}, folder)
    with context.database.read() as session:
        existing = dataset_store.find_dataset(session, NAME, built.content_hash)
    if existing is not None:
        return existing.id
    return store_built(context, NAME, built, None)[0]


def _rows() -> bytes:
    sample = resources.files("service.datasets.sample") / "test.jsonl"
    with sample.open("rb") as file:
        texts = [json.loads(line)["text"] for line in islice(file, _TEXTS)]
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
