"""Rows to token ids: the chat template's frame, the row's own words, the answer.

What stands in a row or a template is never read as a special token of the model: the frame (what
the chat template adds) is found by rendering the chat with markers for its contents, once per
sequence of roles, and frame and contents are tokenised apart.
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

# Some chat templates print today's date. A run must see the same prompt on the day it resumes.
_STANDING_STILL = (
    "{%- macro strftime_now(pattern) -%}"
    "{%- if pattern == '%d %b %Y' -%}01 Jan 2025{%- else -%}2025-01-01{%- endif -%}"
    "{%- endmacro -%}"
)


@dataclass(frozen=True, slots=True)
class Content:
    """A turn's content; `text` is the part that may be cut short."""

    before: str
    text: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids up to where the answer begins; `text` is the part that may be cut short."""

    head: list[int]
    text: list[int]
    tail: list[int]

    def __len__(self) -> int:
        return len(self.head) + len(self.text) + len(self.tail)

    def cut(self, length: int) -> list[int]:
        """Ids of at most `length` tokens, the text's end cut off. Needs length >= head + tail."""
        room = length - len(self.head) - len(self.tail)
        return self.head + self.text[:room] + self.tail


@dataclass(frozen=True, slots=True)
class Example:
    """`ids` are prompt and answer; the answer begins at `start`."""

    ids: list[int]
    start: int


class Tokens:
    """Frames and contents of one tokenizer. `limit` is the longest sequence, in tokens."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = tokenizer
        self.limit = limit
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = self.eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        # The same tokenizer without its added tokens. `split_special_tokens` would spare those that
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

    def plain(self, text: str) -> list[int]:
        """Ids of `text` as mere words."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if self._special.isdisjoint(ids) or len(text) < 2:
            return ids
        # A vocabulary that spells a special token out: take it apart.
        half = len(text) // 2
        return self.plain(text[:half]) + self.plain(text[half:])

    def text(self, ids: Sequence[int]) -> str:
        """What the ids spell, special tokens too."""
        spelt: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return spelt

    def prompt(self, turns: Sequence[tuple[str, Content]]) -> Prompt:
        """The prompt of a chat that an answer of the assistant's follows."""
        frame = self._frame((*(role for role, _ in turns), "assistant"))
        head: list[int] = []
        text: list[int] = []
        tail: list[int] = []
        side = head
        for literal, (_, content) in zip(frame, turns, strict=False):
            side += literal
            # A space before the text belongs to its first word in most vocabularies.
            before = content.before.rstrip(" ") if content.text else content.before
            side += self.plain(before)
            if content.text:
                text = self.plain(content.before[len(before) :] + content.text)
                side = tail
            side += self.plain(content.after)
        side += frame[len(turns)]
        return Prompt(head, text, tail)

    def answer(self, prompt_roles: Sequence[str], answer: str) -> list[int]:
        """Ids of the assistant's answer with its end of turn, up to the end-of-sequence token."""
        key = (*prompt_roles, answer)
        if key not in self._answers:
            end = self._frame((*prompt_roles, "assistant"))[-1]
            end = end[: end.index(self.eos)] if self.eos in end else end
            self._answers[key] = [*self.plain(answer), *end, self.eos]
        return self._answers[key]

    def _frame(self, roles: tuple[str, ...]) -> list[list[int]]:
        """Ids of what the chat template puts before, between and after the contents of the roles.

        One list more than there are roles.
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
            # Some models know no system turn: the instruction then opens the user's.
            chat[1]["content"] = f"{marks[0]}\n\n{marks[1]}"
            rendered = self._apply(chat[1:])
        pieces = []
        for mark in marks:
            literal, found, rendered = rendered.partition(mark)
            if not found:
                raise ProgramFailure(
                    FailureReason.INVALID_SPEC,
                    "base_model: its chat template leaves out or reorders turns of the chat "
                    f"({', '.join(roles)}); fine-tune another variant of the model.",
                )
            pieces.append(literal)
        return [*pieces, rendered]

    def _apply(self, chat: list[dict[str, str]]) -> str:
        layout = self._tokenizer.get_chat_template()
        if "strftime_now" in layout:
            layout = _STANDING_STILL + layout
        rendered: str = self._tokenizer.apply_chat_template(
            chat, tokenize=False, chat_template=layout
        )
        return rendered


@dataclass(slots=True)
class Prompts:
    """Turns rows into prompts and answers, and counts those cut short."""

    tokens: Tokens
    template: Template
    completions: dict[str, str] | None
    """Label -> the assistant's turn, for rows of messages."""
    truncated: int = 0

    def turns(self, row: Row) -> list[tuple[str, Content]]:
        """The row's chat, without the assistant's last answer."""
        if row.messages is None:
            before, after = self.template.split_user(row.group)
            turns = [("user", Content(before, row.text or "", after))]
            if self.template.system is not None:
                turns.insert(0, ("system", Content(self.template.system)))
            return turns
        turns = [(turn["role"], Content(turn["content"])) for turn in row.messages]
        if turns and turns[-1][0] == "assistant":
            turns.pop()
        users = [place for place, (role, _) in enumerate(turns) if role == "user"]
        if users:
            turns[users[-1]] = ("user", Content("", turns[users[-1]][1].before))
        return turns

    def label_answers(self, row: Row, labels: Sequence[str]) -> list[list[int]]:
        """Ids of the whole answer for each label.

        Raises ProgramFailure(invalid_data) for a label that has no word in the template.
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

    def fitted(self, row: Row, answers: Iterable[list[int]]) -> list[int]:
        """The row's prompt, cut so that the longest of `answers` still fits behind it."""
        prompt = self.tokens.prompt(self.turns(row))
        longest = max(len(answer) for answer in answers)
        least = len(prompt.head) + len(prompt.tail) + longest
        if least > self.tokens.limit:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"training.max_seq_length is {self.tokens.limit}, but instruction and answer alone "
                f"take {least} tokens (row {row.id}); give it at least {least} and room for text.",
            )
        room = self.tokens.limit - longest
        self.truncated += len(prompt) > room
        return prompt.cut(room)

    def example(self, row: Row, labels: Sequence[str]) -> Example | None:
        """The row to train on; None for one without an answer.

        The prompt leaves room for every label's answer, so that scoring sees the same one.
        """
        if row.messages is not None and row.messages[-1]["role"] == "assistant":
            roles = [role for role, _ in self.turns(row)]
            answer = self.tokens.answer(roles, row.messages[-1]["content"])
        elif row.label is not None:
            answer = self.label_answers(row, [row.label])[0]
        else:
            return None
        prompt = self.fitted(row, [answer, *self.label_answers(row, labels)])
        return Example(prompt + answer, len(prompt))
