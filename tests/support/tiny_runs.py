"""A run on a tiny model, and as much data as it takes."""

from importlib import resources

TINY = {
    "base_model": "tiny-llama",
    "preset": "quick_test",
    "lora": {"r": 4, "lora_alpha": 8},
    "training": {
        "num_train_epochs": 1,
        "warmup_steps": 1,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 16,
        "gradient_accumulation_steps": 1,
    },
}


def sample(train: int = 48, validation: int = 12, test: int = 30) -> dict[str, bytes]:
    folder = resources.files("service.datasets.sample")
    counts = {"train": train, "validation": validation, "test": test}
    return {
        split: b"".join((folder / f"{split}.jsonl").read_bytes().splitlines(keepends=True)[:count])
        for split, count in counts.items()
    }
