"""Checks of a model's tokenizer: special tokens, chat template, ids within the embeddings."""

import contextlib
import json
from pathlib import Path
from typing import Any

from worker.modeling.model_failures import TOKENIZER, describe, reading, unavailable

_PROBE_CHATS = (
    [{"role": "user", "content": "1"}],
    [{"role": "system", "content": "2"}, {"role": "user", "content": "1"}],
    [{"role": "user", "content": "1"}, {"role": "assistant", "content": "3"}],
)


def check_tokenizer(tokenizer: Any, directory: Path, name: str) -> None:
    """Raise ProgramFailure(model_unavailable) for a tokenizer that no chat can be encoded with."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise unavailable(
            name, "it has no tokenizer.json (a fast tokenizer)", "Save the model with one"
        )
    with reading(name, TOKENIZER):
        eos = tokenizer.eos_token_id
        tokenizer("text", add_special_tokens=True)
        tokenizer.decode(tokenizer("text", add_special_tokens=False)["input_ids"])
        size = len(tokenizer)
    if eos is None:
        raise unavailable(
            name,
            "its tokenizer has no end-of-sequence token, with which every answer ends",
            f"Set eos_token in tokenizer_config.json{_suggestion(tokenizer, directory)}",
        )
    if size == 0:
        raise unavailable(name, "its tokenizer has an empty vocabulary")
    if tokenizer.chat_template is not None:
        _check_template(tokenizer, directory, name)


def _suggestion(tokenizer: Any, directory: Path) -> str:
    """Return the token that config.json states, as an example."""
    try:
        ids = json.loads((directory / "config.json").read_text("utf-8")).get("eos_token_id")
        first = ids[0] if isinstance(ids, list) else ids
        token = tokenizer.convert_ids_to_tokens(first)
    except Exception:  # noqa: BLE001 - only an example
        return ""
    return f", for example to {token!r} (eos_token_id in config.json)" if token else ""


def template_file(directory: Path) -> str:
    """Return the name of the file that holds the chat template."""
    for file in ("chat_template.jinja", "chat_template.json"):
        if (directory / file).exists():
            return file
    return "tokenizer_config.json (chat_template)"


def _check_template(tokenizer: Any, directory: Path, name: str) -> None:
    from jinja2 import TemplateSyntaxError

    file = template_file(directory)
    remedy = "Correct the template, or restore the one that the model was published with"
    refusals = []
    with reading(name, file):
        layout = tokenizer.get_chat_template()
    if not isinstance(layout, str):
        raise unavailable(name, f"the chat template in {file} is not a text", remedy)
    for chat in _PROBE_CHATS:
        try:
            tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=chat[-1]["role"] == "user"
            )
        except TemplateSyntaxError as error:
            raise unavailable(
                name,
                f"the chat template in {file} does not parse (line {error.lineno}: "
                f"{error.message})",
                remedy,
            ) from error
        except Exception as error:  # noqa: BLE001 - a template may raise anything
            refusals.append(error)
        else:
            return
    raise unavailable(
        name,
        f"the chat template in {file} refuses a chat of one user turn ({describe(refusals[0])})",
        remedy,
    ) from refusals[0]


def check_token_range(tokenizer: Any, embeddings: int, name: str) -> None:
    """Compare the tokenizer's ids with the number of rows of the model's embeddings.

    Such a token would be read from beyond the matrix. A padding token is masked, so that the
    end-of-sequence token can take its place; an added token that neither the chat template nor the
    tokenizer itself produces is dropped, and its text is read as ordinary text. Raises
    ProgramFailure(model_unavailable) for any other.
    """
    from tokenizers import Tokenizer

    beyond = {index: token for token, index in tokenizer.get_vocab().items() if index >= embeddings}
    if not beyond:
        return
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"] for token in layout["added_tokens"]}
    needed = {tokenizer.eos_token, tokenizer.bos_token}
    frame = _frame_text(tokenizer)
    for index, token in sorted(beyond.items()):
        is_needed = token in needed or (token != tokenizer.pad_token and token in frame)
        if index not in added or is_needed:
            raise unavailable(
                name,
                f"its tokenizer has {max(beyond) + 1} tokens, the model {embeddings} embeddings; "
                f"{token!r} is token {index}",
                "Resize the model's embeddings to its tokenizer (resize_token_embeddings) and save "
                "both, or restore the tokenizer's files that belong to the model",
            )
    if tokenizer.pad_token is not None and tokenizer.pad_token_id >= embeddings:
        tokenizer.pad_token = tokenizer.eos_token
    layout["added_tokens"] = [token for token in layout["added_tokens"] if token["id"] < embeddings]
    with reading(name, TOKENIZER):
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(layout))


def _frame_text(tokenizer: Any) -> str:
    """Return the chat template's text and what it renders, where special tokens may appear."""
    if tokenizer.chat_template is None:
        return ""
    texts = [tokenizer.get_chat_template()]
    for chat in _PROBE_CHATS:
        with contextlib.suppress(Exception):  # the template refuses this chat
            texts.append(tokenizer.apply_chat_template(chat, tokenize=False))
    return "\n".join(texts)
