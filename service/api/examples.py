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

EVALUATIONS: dict[str, Example] = {
    "adapter": Example(
        summary="The run's adapter on another dataset",
        description="Under the run's template, on all rows of the dataset's test split.",
        value={"dataset_id": _DATASET},
    ),
    "checkpoint": Example(
        summary="A checkpoint on 200 validation rows",
        description="The same 200 for every checkpoint; GET …/checkpoints lists the steps.",
        value={"target": "checkpoint", "step": 90, "split": "validation", "max_samples": 200},
    ),
    "base": Example(
        summary="The base model under a long template",
        value={"target": "base", "template": "hate_speech_policy"},
    ),
}

MERGES: dict[str, Example] = {
    "adapter": Example(
        summary="The run's adapter, in bfloat16", description="In files of 5 GB at most.", value={}
    ),
    "checkpoint": Example(
        summary="A checkpoint, in smaller files",
        description="GET …/checkpoints lists the steps.",
        value={"checkpoint": 90, "max_shard_size": "2GB"},
    ),
    "as_trained": Example(
        summary="Into the weights that the training saw",
        description="The base model's weights after a way through 4 bits: nearest to the adapter.",
        value={"base_weights": "dequantized", "dtype": "float32"},
    ),
}

PREDICTIONS: dict[str, Example] = {
    "adapter": Example(
        summary="Two texts, as the run decides",
        value={"texts": ["They are welcome here.", "They should all be gone."]},
    ),
    "merged": Example(
        summary="With the merged model, positive from 0.7 on",
        value={"texts": ["They are welcome here."], "target": "merged", "threshold": 0.7},
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

REPORTS: dict[str, Example] = {
    "same": Example(summary="As the run has it", value={}),
    "strict": Example(
        summary="Stricter caps, surer limits, a threshold of your own",
        description="Exploratory: it gates nothing.",
        value={
            "caps": [{"group": "lgbtq", "metric": "fpr", "max": 0.1}],
            "confidence": 0.99,
            "threshold": 0.7,
        },
    ),
    "fitted": Example(
        summary="At the threshold that validation gives", value={"threshold": "fitted"}
    ),
}

PROMOTIONS: dict[str, Example] = {
    "gated": Example(
        summary="Where the certifying report passes",
        value={"name": "hate-en", "stage": "production"},
    ),
    "override": Example(
        summary="All the same",
        value={
            "name": "hate-en",
            "stage": "staging",
            "override": {"reason": "For the moderators' trial, behind a human check (T-314)."},
        },
    ),
}
