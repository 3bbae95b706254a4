"""Tokenization of rows: the chat template's frame, the row's own text, the answer.

Text of a row or of a prompt template is never tokenized as a special token of the model. The frame
(all that the chat template adds) is obtained by rendering the chat with markers as contents, once
per sequence of roles; frame and contents are then tokenized separately.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from service.domain.template import Template
from worker.data.rows import Row

# Some chat templates print the current date. A resumed run must see the same prompt on another day.
_FIXED_DATE_MACRO = (
    "{%- macro strftime_now(pattern) -%}"
    "{%- if pattern == '%d %b %Y' -%}01 Jan 2025{%- else -%}2025-01-01{%- endif -%}"
    "{%- endmacro -%}"
)


@dataclass(frozen=True, slots=True)
class Content:
    """A turn's content; `text` is the part that may be truncated."""

    before: str
    text: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids up to the start of the answer; `text` is the part that may be truncated."""

    head: list[int]
    text: list[int]
    tail: list[int]

    def __len__(self) -> int:
        return len(self.head) + len(self.text) + len(self.tail)

    def truncated(self, length: int) -> list[int]:
        """Return at most `length` ids, cutting the text's end. Needs length >= head + tail."""
        room = length - len(self.head) - len(self.tail)
        return self.head + self.text[:room] + self.tail


@dataclass(frozen=True, slots=True)
class Example:
    """A training sample: `ids` are prompt and answer, `start` is the answer's first index."""

    ids: list[int]
    start: int


class Tokens:
    """Tokenizes frames and contents. `limit` is the maximum length of a sequence, in tokens."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = tokenizer
        self.limit = limit
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = self.eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        # The same tokenizer without its added tokens. `split_special_tokens` would leave those that
        # are added but not marked special, such as Qwen's <think>.
        layout = json.loads(tokenizer.backend_tokenizer.to_str())
        self._special = {token["id"] for token in layout["added_tokens"]}
        layout |= {
            "added_tokens": [],
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        self._plain = Tokenizer.from_str(json.dumps(layout))
        self._frames: dict[tuple[str, ...], list[list[int]]] = {}
        self._answers: dict[tuple[str, ...], list[int]] = {}

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of `text`, none of which is a special token."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if self._special.isdisjoint(ids) or len(text) < 2:
            return ids
        # The vocabulary itself contains the text of a special token: split the text.
        half = len(text) // 2
        return self.encode_text(text[:half]) + self.encode_text(text[half:])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        decoded: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return decoded

    def prompt(self, turns: Sequence[tuple[str, Content]]) -> Prompt:
        """Return the prompt of a chat, ready for the assistant's answer."""
        frame = self._frame((*(role for role, _ in turns), "assistant"))
        head: list[int] = []
        text: list[int] = []
        tail: list[int] = []
        part = head
        for literal, (_, content) in zip(frame, turns, strict=False):
            part += literal
            # In most vocabularies a space before the text belongs to its first word.
            before = content.before.rstrip(" ") if content.text else content.before
            part += self.encode_text(before)
            if content.text:
                text = self.encode_text(content.before[len(before) :] + content.text)
                part = tail
            part += self.encode_text(content.after)
        part += frame[len(turns)]
        return Prompt(head, text, tail)

    def answer(self, prompt_roles: Sequence[str], answer: str) -> list[int]:
        """Return the ids of the assistant's answer, its end of turn and the EOS token."""
        key = (*prompt_roles, answer)
        if key not in self._answers:
            end = self._frame((*prompt_roles, "assistant"))[-1]
            end = end[: end.index(self.eos)] if self.eos in end else end
            self._answers[key] = [*self.encode_text(answer), *end, self.eos]
        return self._answers[key]

    def _frame(self, roles: tuple[str, ...]) -> list[list[int]]:
        """Return the ids that the chat template adds before, between and after the contents.

        There is one more list than there are roles.
        """
        if roles not in self._frames:
            self._frames[roles] = [
                self._tokenizer(literal, add_special_tokens=False)["input_ids"] if literal else []
                for literal in self._render(roles)
            ]
            if self._tokenizer.chat_template is None:
                opening = self._tokenizer("", add_special_tokens=True)["input_ids"]
                if opening[:1] == [self._tokenizer.bos_token_id]:
                    self._frames[roles][0].insert(0, opening[0])
        return self._frames[roles]

    def _render(self, roles: tuple[str, ...]) -> list[str]:
        if self._tokenizer.chat_template is None:
            return ["", *("\n\n" for _ in roles[2:]), "\n", ""]
        from jinja2 import TemplateError

        marks = [f"X{uuid.uuid4().hex}X" for _ in roles]
        chat = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        try:
            rendered = self._apply(chat)
        except TemplateError:
            if roles[0] != "system":
                raise
            # Some models have no system turn: the instruction is then put before the user's text.
            chat[1]["content"] = f"{marks[0]}\n\n{marks[1]}"
            rendered = self._apply(chat[1:])
        pieces = []
        for mark in marks:
            literal, marker, rendered = rendered.partition(mark)
            if not marker:
                raise ProgramFailure(
                    FailureReason.INVALID_SPEC,
                    "base_model: its chat template omits or reorders turns of the chat "
                    f"({', '.join(roles)}); fine-tune another variant of the model.",
                )
            pieces.append(literal)
        return [*pieces, rendered]

    def _apply(self, chat: list[dict[str, str]]) -> str:
        layout = self._tokenizer.get_chat_template()
        if "strftime_now" in layout:
            layout = _FIXED_DATE_MACRO + layout
        rendered: str = self._tokenizer.apply_chat_template(
            chat, tokenize=False, chat_template=layout
        )
        return rendered


@dataclass(slots=True)
class Prompts:
    """Builds prompts and answers from rows, and counts the truncated prompts."""

    tokens: Tokens
    template: Template
    completions: dict[str, str] | None
    """The assistant's turn for each label, for rows of messages."""
    truncated: int = 0

    def turns(self, row: Row) -> list[tuple[str, Content]]:
        """Return the row's chat as (role, content), without the assistant's last answer."""
        if row.messages is None:
            before, after = self.template.split_user(row.group)
            turns = [("user", Content(before, row.text or "", after))]
            if self.template.system is not None:
                turns.insert(0, ("system", Content(self.template.system)))
            return turns
        turns = [(turn["role"], Content(turn["content"])) for turn in row.messages]
        if turns and turns[-1][0] == "assistant":
            turns.pop()
        users = [index for index, (role, _) in enumerate(turns) if role == "user"]
        if users:
            turns[users[-1]] = ("user", Content("", turns[users[-1]][1].before))
        return turns

    def label_answers(self, row: Row, labels: Sequence[str]) -> list[list[int]]:
        """Return the ids of the whole answer for each label.

        Raises ProgramFailure(invalid_data) for a label without a completion in the template.
        """
        roles = [role for role, _ in self.turns(row)]
        answers = []
        for label in labels:
            try:
                if row.messages is not None and self.completions is not None:
                    text = self.completions[label]
                else:
                    text = self.template.completion_for(label)
            except KeyError as error:
                raise ProgramFailure(
                    FailureReason.INVALID_DATA,
                    f"The template {self.template.name} has no word for the label {label!r}.",
                ) from error
            answers.append(self.tokens.answer(roles, text))
        return answers

    def fit_prompt(self, row: Row, answers: Iterable[list[int]]) -> list[int]:
        """Return the row's prompt, truncated so that the longest of `answers` fits after it.

        Raises ProgramFailure(invalid_spec) if prompt frame and answer alone exceed the limit.
        """
        prompt = self.tokens.prompt(self.turns(row))
        longest = max(len(answer) for answer in answers)
        min_tokens = len(prompt.head) + len(prompt.tail) + longest
        if min_tokens > self.tokens.limit:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"training.max_seq_length is {self.tokens.limit}, but instruction and answer alone "
                f"take {min_tokens} tokens (row {row.id}); set it to at least {min_tokens}, plus "
                "room for the text.",
            )
        room = self.tokens.limit - longest
        self.truncated += len(prompt) > room
        return prompt.truncated(room)

    def example(self, row: Row, labels: Sequence[str]) -> Example | None:
        """Return the training sample of the row; None for a row without an answer.

        The prompt leaves room for every label's answer, so that scoring sees the same prompt.
        """
        if row.messages is not None and row.messages[-1]["role"] == "assistant":
            roles = [role for role, _ in self.turns(row)]
            answer = self.tokens.answer(roles, row.messages[-1]["content"])
        elif row.label is not None:
            answer = self.label_answers(row, [row.label])[0]
        else:
            return None
        prompt = self.fit_prompt(row, [answer, *self.label_answers(row, labels)])
        return Example(prompt + answer, len(prompt))
