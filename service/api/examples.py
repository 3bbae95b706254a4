"""Request examples for Swagger UI."""

from fastapi.openapi.models import Example

from service.domain.base_models import BUNDLED_MODEL

_DATASET = "ds_01jz8x0m3c9v5k2q7w4t6y8n1a"

RUNS: dict[str, Example] = {
    "quick": Example(
        summary="A quick test on the bundled model",
        description="The dataset_id is the `id` that POST /v1/datasets returned.",
        value={
            "name": "first run",
            "preset": "quick_test",
            "base_model": BUNDLED_MODEL,
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
        summary="Custom release caps",
        description="The dataset must contain each cap's group.",
        value={
            "preset": "default",
            "base_model": BUNDLED_MODEL,
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
        summary="The best published configuration: rank 64 on gpt-oss-20b",
        value={"preset": "high_capacity", "dataset_id": _DATASET, "tags": ["release-candidate"]},
    ),
}

EVALUATIONS: dict[str, Example] = {
    "adapter": Example(
        summary="The run's adapter on another dataset",
        description="With the run's template, on all rows of the dataset's test split.",
        value={"dataset_id": _DATASET},
    ),
    "checkpoint": Example(
        summary="A checkpoint on 200 validation rows",
        description="The 200 rows are the same for every checkpoint. GET …/checkpoints lists the "
        "steps.",
        value={"target": "checkpoint", "step": 90, "split": "validation", "max_samples": 200},
    ),
    "base": Example(
        summary="The base model with a long template",
        value={"target": "base", "template": "hate_speech_policy"},
    ),
}

MERGES: dict[str, Example] = {
    "adapter": Example(
        summary="The run's adapter, in bfloat16", description="Files have at most 5 GB.", value={}
    ),
    "checkpoint": Example(
        summary="A checkpoint, in smaller files",
        description="GET …/checkpoints lists the steps.",
        value={"checkpoint": 90, "max_shard_size": "2GB"},
    ),
    "as_trained": Example(
        summary="Merge into the dequantized weights",
        description="The base weights after 4-bit quantization, as training used them: closest to "
        "the adapter's scores.",
        value={"base_weights": "dequantized", "dtype": "float32"},
    ),
}

PREDICTIONS: dict[str, Example] = {
    "adapter": Example(
        summary="Two texts, with the run's threshold",
        value={"texts": ["They are welcome here.", "They should all be gone."]},
    ),
    "merged": Example(
        summary="With the merged model and a threshold of 0.7",
        value={"texts": ["They are welcome here."], "target": "merged", "threshold": 0.7},
    ),
    "messages": Example(
        summary="A chat, for a run that was trained on chats",
        value={
            "messages": [
                [
                    {"role": "system", "content": "Judge the post."},
                    {"role": "user", "content": "They are welcome here."},
                ]
            ]
        },
    ),
}

CLONES: dict[str, Example] = {
    "same": Example(summary="An identical run", value={}),
    "slower": Example(
        summary="A third of the learning rate, another seed",
        description="A common next step after a run diverged.",
        value={"name": "slower", "seed": 7, "training": {"learning_rate": 7e-5}},
    ),
}

REPORTS: dict[str, Example] = {
    "same": Example(summary="The run's settings", value={}),
    "strict": Example(
        summary="Stricter caps, higher confidence, a custom threshold",
        description="The report is exploratory and gates nothing.",
        value={
            "caps": [{"group": "lgbtq", "metric": "fpr", "max": 0.1}],
            "confidence": 0.99,
            "threshold": 0.7,
        },
    ),
    "fitted": Example(summary="The threshold fitted on validation", value={"threshold": "fitted"}),
}

PROMOTIONS: dict[str, Example] = {
    "gated": Example(
        summary="A run whose certifying report passes",
        value={"name": "hate-en", "stage": "production"},
    ),
    "override": Example(
        summary="Override a report that does not pass",
        value={
            "name": "hate-en",
            "stage": "staging",
            "override": {"reason": "Trial with moderators, behind human review (T-314)."},
        },
    ),
}

DATASETS: dict[str, Example] = {
    "splits": Example(
        summary="One file per split",
        description="With curl: `-F name='my posts' -F train=@train.jsonl -F test=@test.jsonl`. A "
        "row is one JSON object per line with `text`, `label` and `group`.",
        value={
            "name": "my posts",
            "train": '{"text": "They are welcome here.", "label": "normal", "group": "mexican"}\n'
            '{"text": "They should all be gone.", "label": "hate", "group": "mexican"}\n',
            "test": '{"text": "Good neighbours.", "label": "normal", "group": "mexican"}\n',
        },
    ),
    "mapping": Example(
        summary="One CSV file with its own column names",
        description="With curl: `-F name='moderation log' -F file=@log.csv -F mapping='{…}'`. The "
        "column `split` assigns rows to train, validation and test.",
        value={
            "name": "moderation log",
            "file": "comment,class,split\nGood neighbours.,fine,train\nGo away.,toxic,train\n",
            "format": "csv",
            "mapping": '{"text": "comment", "label": "class", "labels": ["toxic", "fine"]}',
            "on_invalid": "drop",
        },
    ),
}

ADAPTERS: dict[str, Example] = {
    "bundled": Example(
        summary="An adapter of the bundled model, loaded in 16 bits",
        description="With curl: `-F file=@adapter.tar -F options='{…}'`; the archive comes from "
        "`tar -cf adapter.tar -C DIR .`.",
        value={
            "file": "(adapter.tar)",
            "options": '{"name": "trained elsewhere", "base_model": "'
            f'{BUNDLED_MODEL}", '
            '"template": "hate_speech_simple", "quantization": {"load_in_4bit": false}}',
        },
    ),
    "labels": Example(
        summary="With labels of its own, and the rows to evaluate it on",
        value={
            "file": "(adapter.tar.gz)",
            "options": f'{{"base_model": "{BUNDLED_MODEL}", "dataset_id": "{_DATASET}", '
            '"template": "label_only", "labels": ["toxic", "fine"], '
            '"fairness": {"positive_label": "toxic", "caps": []}}',
        },
    ),
}
