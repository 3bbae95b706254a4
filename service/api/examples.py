"""Worked examples for Swagger UI."""

from fastapi.openapi.models import Example

_DATASET = "ds_01jz8x0m3c9v5k2q7w4t6y8n1a"

RUNS: dict[str, Example] = {
    "quick": Example(
        summary="A quick test on the bundled model",
        description="The dataset_id is what POST /v1/datasets answered.",
        value={
            "name": "first run",
            "preset": "quick_test",
            "base_model": "smollm2-135m-instruct",
            "dataset_id": _DATASET,
            "training": {
                "num_train_epochs": 2,
                "learning_rate": 2e-3,
                "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 1,
                "warmup_steps": 4,
                "gradient_checkpointing": False,
            },
        },
    ),
    "caps": Example(
        summary="Release caps of your own",
        description="Each cap's group must be in the dataset.",
        value={
            "preset": "default",
            "base_model": "smollm2-135m-instruct",
            "dataset_id": _DATASET,
            "fairness": {
                "positive_label": "hate",
                "caps": [
                    {"group": "lgbtq", "metric": "fpr", "max": 0.2},
                    {"group": "mexican", "metric": "fnr", "max": 0.3},
                ],
                "min_f1": 0.65,
            },
        },
    ),
    "large": Example(
        summary="The published best: rank 64 on gpt-oss-20b",
        value={"preset": "high_capacity", "dataset_id": _DATASET, "tags": ["release-candidate"]},
    ),
}

CLONES: dict[str, Example] = {
    "same": Example(summary="The same again", value={}),
    "slower": Example(
        summary="A third of the learning rate, another seed",
        description="What one does after a run that diverged.",
        value={"name": "slower", "seed": 7, "training": {"learning_rate": 7e-5}},
    ),
}
