"""The two systems that Fairtune is compared with, set up as their users do."""

from pathlib import Path
from typing import Any

from benchmarks.throughput.rows import examples, in_order
from benchmarks.throughput.watch import Watch
from benchmarks.throughput.work import Work, spec_of
from service.domain.spec import RunSpec

IGNORE_INDEX = -100


def original(work: Work, directory: Path, watch: Watch) -> list[tuple[list[int], int]]:
    """Train with transformers' Trainer on rows padded to the full length, with loss on all tokens.

    The published training script's own calls: prepare_model_for_kbit_training, get_peft_model,
    gradient checkpointing, DataCollatorForLanguageModeling(mlm=False), which sets labels of pad
    tokens to -100. bfloat16 autocast, as in its configuration, unless all is in float32.
    """
    from peft import prepare_model_for_kbit_training
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    watch.imported()
    model, tokenizer, spec = _load(work, {})
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=work.checkpointing)
    model = _adapted(model, spec, work)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    ordered = in_order(examples(work, tokenizer), work)
    padded = [
        {
            "input_ids": row.ids + [tokenizer.pad_token_id] * (work.max_length - len(row.ids)),
            "attention_mask": [1] * len(row.ids) + [0] * (work.max_length - len(row.ids)),
        }
        for row in ordered
    ]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**_arguments(work, spec, directory)),
        train_dataset=padded,
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False),
        callbacks=[_callback(watch)],
    )
    trainer.train()
    watch.losses = _losses(trainer)
    return [(row.ids, row.start) for row in ordered]


def trl(work: Work, directory: Path, watch: Watch) -> list[tuple[list[int], int]]:
    """Train with TRL's SFTTrainer: loss on completions, rows padded to a micro-batch's longest.

    `options`: `attn_implementation` of the model; `sorted` to sort the rows of a step by length,
    which has the effect of grouping by length without changing a step's rows; all others are
    passed to SFTConfig.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    watch.imported()
    options = {"sorted": True} | work.options
    attention = options.pop("attn_implementation", None)
    by_length = options.pop("sorted")
    loading = {} if attention is None else {"attn_implementation": attention}
    model, tokenizer, spec = _load(work, loading)
    model.requires_grad_(requires_grad=False)
    model = _adapted(model, spec, work)
    ordered = in_order(examples(work, tokenizer), work)
    rows = ordered
    if by_length:
        steps = [
            ordered[first : first + work.batch] for first in range(0, len(ordered), work.batch)
        ]
        rows = [row for step in steps for row in sorted(step, key=lambda row: len(row.ids))]
    dataset = Dataset.from_dict(
        {
            "input_ids": [row.ids for row in rows],
            "labels": [[IGNORE_INDEX] * row.start + row.ids[row.start :] for row in rows],
        }
    )
    padding_free = options.get("padding_free", False)
    settings = _arguments(work, spec, directory) | {
        "max_length": None if padding_free else work.max_length,
        "train_sampling_strategy": "sequential",
    }
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings | options),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[_callback(watch)],
    )
    trainer.train()
    watch.losses = _losses(trainer)
    return [(row.ids, row.start) for row in ordered]


def _load(work: Work, loading: dict[str, Any]) -> tuple[Any, Any, RunSpec]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    spec = RunSpec.model_validate(spec_of(work))
    directory = Path(work.models_dir) / work.model
    section = spec.quantization
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        trust_remote_code=False,
        dtype=getattr(torch, work.dtype),
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=section.load_in_4bit,
            bnb_4bit_quant_type=section.bnb_4bit_quant_type,
            bnb_4bit_compute_dtype=getattr(torch, section.bnb_4bit_compute_dtype),
            bnb_4bit_use_double_quant=section.bnb_4bit_use_double_quant,
        ),
        **loading,
    )
    return model, AutoTokenizer.from_pretrained(directory, trust_remote_code=False), spec


def _adapted(model: Any, spec: RunSpec, work: Work) -> Any:
    """Add the adapter by Fairtune's own function, so that equal seeds give equal adapters."""
    from worker.modeling.load import add_adapter

    adapted = add_adapter(model, spec.lora, spec.seed, spec.base_model)
    redraw(adapted, work.adapter_seed)
    return adapted


def redraw(model: Any, seed: int) -> None:
    """Draw new LoRA A matrices as peft does (uniform within 1/sqrt(inputs)); B remains zero.

    Rounds differ in this alone, for every system: a spread over seeds with one order of rows.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, factor in sorted(model.named_parameters()):
        if "lora_A" in name:
            bound = factor.shape[1] ** -0.5
            ordered = torch.empty(factor.shape).uniform_(-bound, bound, generator=generator)
            factor.data.copy_(ordered)


def _arguments(work: Work, spec: RunSpec, directory: Path) -> dict[str, Any]:
    """Return the arguments of both trainers, from the common specification."""
    import torch

    training = spec.training
    return {
        "output_dir": str(directory),
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "max_steps": training.max_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optim,
        "bf16": training.bf16,
        "gradient_checkpointing": training.gradient_checkpointing,
        "train_sampling_strategy": "sequential",
        "seed": work.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }


def _callback(watch: Watch) -> Any:
    from transformers import TrainerCallback

    class Stamps(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            watch.step_begins()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step_ends()

    return Stamps()


def _losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
