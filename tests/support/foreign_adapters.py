"""Adapters trained and scored by peft and transformers alone, without a line of the product."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.domain.template import Template
from tests.support.train_jobs import rows


def train_elsewhere(
    models_dir: Path, directory: Path, template: Template, base: str = "tiny-llama", **lora: Any
) -> Path:
    """Train an adapter with peft for some steps and save it into `directory`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models_dir / base)
    model = AutoModelForCausalLM.from_pretrained(models_dir / base)
    torch.manual_seed(11)
    options = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]} | lora
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.02)
    examples = [_ids(tokenizer, template, row["text"], row["label"]) for row in rows(16, 0, 0)]
    adapted.train()
    for prompt, answer in examples:
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        loss = adapted(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(directory)
    return directory


def load_elsewhere(models_dir: Path, directory: Path | None, base: str = "tiny-llama") -> Any:
    """Return the model as peft loads it; without an adapter if `directory` is None."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models_dir / base).eval()
    return model if directory is None else PeftModel.from_pretrained(model, str(directory)).eval()


def probabilities(
    model: Any,
    models_dir: Path,
    template: Template,
    texts: Sequence[str],
    labels: Sequence[str],
    base: str = "tiny-llama",
) -> list[list[float]]:
    """Return each label's probability among the labels, from its whole answer, row by row."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models_dir / base)
    table = []
    for text in texts:
        scores = []
        for label in labels:
            prompt, answer = _ids(tokenizer, template, text, label)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
            log_probabilities = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
            scores.append(log_probabilities[range(len(answer)), answer].sum())
        table.append(torch.softmax(torch.stack(scores), dim=0).tolist())
    return table


def _ids(tokenizer: Any, template: Template, text: str, label: str) -> tuple[list[int], list[int]]:
    """Return the ids of prompt and answer, with the end of the turn, by the chat template."""
    turns = [] if template.system is None else [{"role": "system", "content": template.system}]
    turns.append({"role": "user", "content": template.user.replace("$text", text)})
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = template.completion_for(label) + "<|im_end|>"
    return prompt_ids, tokenizer(answer, add_special_tokens=False)["input_ids"]
