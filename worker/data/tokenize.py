"""Tokenization of rows: the prompt that a chat server sends, and the answer behind it.

The ids of prompt and answer are those of the model's own chat template, rendered as one string and
tokenized once. Text of a row or of a prompt template is never tokenized as a control token.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from service.domain.template import Template
from worker.data.chat_template import (
    Chat,
    ChatTemplate,
    TemplateRefusal,
    new_turn,
    unusable_template,
)
from worker.data.encoding import Encoder, EncodingFailure
from worker.data.fitting import Fitting, Truncation, TurnsTooLong
from worker.data.rows import Row

_CACHED_CHARACTERS = 1000
_MAX_CACHED = 1000
"""Cached are the ids of that many answers behind a frame: labels' answers, not free ones."""


@dataclass(frozen=True, slots=True)
class Example:
    """A training sample: `ids` are prompt and answer, `start` is the answer's first index."""

    ids: list[int]
    start: int


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row's prompt, and the ids of each label's whole answer, end of turn included."""

    prompt: list[int]
    answers: list[list[int]]
    chat: Chat
    """The chat that the prompt renders, after truncation."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A chat as the template takes it, with protected texts, and the text of its prompt."""

    chat: Chat
    text: str


class Tokens:
    """Ids of chats. `limit` is the maximum length of a sequence, in tokens."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.template = ChatTemplate(tokenizer)
        self.encoder = Encoder(tokenizer)
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = self.eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._opening: list[int] = []
        if self.template.is_absent:
            opening = tokenizer("", add_special_tokens=True)["input_ids"]
            self._opening = opening[:1] if opening[:1] == [tokenizer.bos_token_id] else []
        self._answers: dict[tuple[str, str], list[int]] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        decoded: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return decoded

    def prompt(self, chat: Chat) -> list[int]:
        """Return the ids of a chat's prompt, ready for the assistant's answer.

        Raises TemplateRefusal, EncodingFailure, and ProgramFailure(model_unavailable) for an
        unusable chat template.
        """
        return self.encode_prompt(self.render(chat))

    def render(self, chat: Chat) -> RenderedPrompt:
        """Return the text of a chat's prompt. Raises as `prompt` does."""
        protect = self.encoder.protect
        adapted = self.template.adapt(chat)
        protected = [turn | {"content": protect(turn["content"])} for turn in adapted]
        return RenderedPrompt(protected, self.template.prompt(protected))

    def encode_prompt(self, rendered: RenderedPrompt) -> list[int]:
        """Return the ids of a prompt."""
        return self._encode(rendered.text)

    def answer(self, rendered: RenderedPrompt, answer: str) -> list[int]:
        """Return the ids that follow the prompt: the answer, its end of turn and EOS."""
        text = self.template.answer(rendered.chat, rendered.text, self.encoder.protect(answer))
        key = self.encoder.last_segment(rendered.text), text
        if (cached := self._answers.get(key)) is not None:
            return cached
        ids = self._following(rendered.text, text)
        if ids[-1:] != [self.eos]:
            ids = [*ids, self.eos]
        if sum(map(len, key)) <= _CACHED_CHARACTERS and len(self._answers) < _MAX_CACHED:
            self._answers[key] = ids
        return ids

    def _encode(self, rendered: str) -> list[int]:
        return self._opening + self.encoder.encode(rendered)

    def _following(self, prompt: str, answer: str) -> list[int]:
        """Return the ids of `answer` right after the prompt's ids."""
        before, whole = self._encode(prompt), self._encode(prompt + answer)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        # Prompt and answer share a token in the whole string. A server's prompt ends where the
        # prompt does, so the answer is encoded behind an end of text that it shares nothing with.
        for anchor in ("\n", ".", "a", " "):
            opening, both = (self.encoder.encode(text) for text in (anchor, anchor + answer))
            if both[: len(opening)] == opening:
                return both[len(opening) :]
        return self.encoder.encode(answer)


class Prompts:
    """Builds prompts and answers from rows, and counts the rows that had to be shortened."""

    def __init__(
        self, tokens: Tokens, template: Template, completions: dict[str, str] | None
    ) -> None:
        self.tokens = tokens
        self.template = template
        self.completions = completions
        """The assistant's turn for each label, for rows of messages."""
        self.counts: Counter[str] = Counter()
        """Rows by what was cut: `truncated` in any way, `without_history` (their oldest turns),
        `without_instruction` (the end of their own system turn), and `too_long`: training rows
        left out because frame and answer alone are too long."""
        self._fitting = Fitting(tokens.prompt, tokens.encoder.token_ends)

    @property
    def truncated(self) -> int:
        """Number of rows that were shortened in any way."""
        return self.counts["truncated"]

    def chat(self, row: Row) -> Chat:
        """Return the row's chat without the assistant's last answer."""
        if row.messages is None:
            chat = [new_turn("user", "".join(self._user_parts(row)))]
            if self.template.system is not None:
                chat.insert(0, new_turn("system", self.template.system))
            return chat
        turns = [new_turn(turn["role"], turn["content"]) for turn in row.messages]
        return turns[:-1] if turns[-1]["role"] == "assistant" else turns

    def encode(self, row: Row, labels: Sequence[str]) -> EncodedRow:
        """Return the row's prompt, shortened so that the longest of the answers fits after it.

        Raises ProgramFailure: invalid_spec if instruction and answer alone exceed the limit or two
        labels have the same ids, invalid_data for a label without a completion and a chat that the
        model's template refuses, model_unavailable for a template that refuses every text.
        """
        try:
            encoded = self._encode(row, self.answers(row, labels))
        except TurnsTooLong as error:
            raise self._too_short(row, error.missing) from error
        self._check_distinct(labels, encoded.answers)
        return encoded

    def answers(self, row: Row, labels: Sequence[str]) -> list[str]:
        """Return the assistant's turn for each label. Raises ProgramFailure(invalid_data)."""
        return [self._completion(row, label) for label in labels]

    def example(self, row: Row, labels: Sequence[str]) -> Example | None:
        """Return the training sample of the row; None for a row without an answer.

        None as well for a chat whose answer is too long, which `too_long` counts. The prompt leaves
        room for every label's answer, so that scoring sees the same prompt. Raises ProgramFailure.
        """
        if row.messages is not None and row.messages[-1]["role"] == "assistant":
            text = row.messages[-1]["content"]
        elif row.label is not None:
            text = self._completion(row, row.label)
        else:
            return None
        try:
            encoded = self._encode(row, [text, *self.answers(row, labels)])
        except TurnsTooLong:
            self.counts["too_long"] += 1
            return None
        self._check_distinct(labels, encoded.answers[1:])
        return Example(encoded.prompt + encoded.answers[0], len(encoded.prompt))

    def _encode(self, row: Row, answers: Sequence[str]) -> EncodedRow:
        chat = self.chat(row)
        try:
            prompt, answer_ids = self._ids(chat, answers)
            room = self.tokens.limit - max(map(len, answer_ids), default=0)
            if len(prompt) <= room:
                return EncodedRow(prompt, answer_ids, chat)
            chat, cut = self._shorten(row, chat, room)
            prompt, answer_ids = self._ids(chat, answers)
        except TemplateRefusal as error:
            raise self._refused(row, chat, error) from error
        except EncodingFailure as error:
            raise self._not_encoded(row, error) from error
        self.counts.update(
            truncated=1, without_history=cut.history, without_instruction=cut.instruction
        )
        return EncodedRow(prompt, answer_ids, chat)

    def _ids(self, chat: Chat, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        rendered = self.tokens.render(chat)
        answer_ids = [self.tokens.answer(rendered, answer) for answer in answers]
        return self.tokens.encode_prompt(rendered), answer_ids

    def _shorten(self, row: Row, chat: Chat, room: int) -> tuple[Chat, Truncation]:
        if row.messages is None:
            before, text, after = self._user_parts(row)
            shortened, missing = self._fitting.text(chat, -1, (before, text, after), room)
            if missing:
                raise self._too_short(row, missing)
            return shortened, Truncation()
        return self._fitting.chat(chat, room)

    def _user_parts(self, row: Row) -> tuple[str, str, str]:
        before, after = self.template.split_user(row.group)
        return before, row.text or "", after

    def _completion(self, row: Row, label: str) -> str:
        try:
            if row.messages is not None and self.completions is not None:
                return self.completions[label]
            return self.template.completion_for(label)
        except KeyError as error:
            raise ProgramFailure(
                FailureReason.INVALID_DATA,
                f"The template {self.template.name} has no word for the label {label!r}.",
            ) from error

    def _too_short(self, row: Row, missing: int) -> ProgramFailure:
        needed = self.tokens.limit + missing
        return ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"training.max_seq_length is {self.tokens.limit}, but instruction and answer alone "
            f"take {needed} tokens (row {row.id}); set it to at least {needed}, plus "
            "room for the text.",
        )

    def _check_distinct(self, labels: Sequence[str], answers: Sequence[Sequence[int]]) -> None:
        """Raise ProgramFailure(invalid_spec) for two labels whose answers have the same ids."""
        label_of: dict[tuple[int, ...], str] = {}
        for label, ids in zip(labels, map(tuple, answers), strict=True):
            if (other := label_of.setdefault(ids, label)) != label:
                raise ProgramFailure(
                    FailureReason.INVALID_SPEC,
                    f"template: the answers for the labels {other!r} and {label!r} are the same "
                    f"tokens ({self.tokens.decode(ids)!r}) for the tokenizer of the base model, so "
                    "that no score can tell them apart. Choose other words for the labels, or "
                    "fine-tune a model whose tokenizer knows them.",
                )

    def _refused(self, row: Row, chat: Chat, error: TemplateRefusal) -> ProgramFailure:
        roles = ", ".join(turn["role"] for turn in chat)
        if row.messages is None:  # all texts have these turns
            return unusable_template(f"refuses the turns of a text ({roles}, assistant: {error})")
        return ProgramFailure(
            FailureReason.INVALID_DATA,
            f"Row {row.id} of the {row.split} split: the chat template of the base model refuses "
            f"its turns ({roles}): {error}. Change the turns of such rows, or fine-tune a model "
            "whose chat template takes them.",
        )

    def _not_encoded(self, row: Row, error: EncodingFailure) -> ProgramFailure:
        return ProgramFailure(
            FailureReason.INVALID_DATA,
            f"Row {row.id} of the {row.split} split: the tokenizer of the base model fails on it "
            f"({error}). Correct or remove the row, or fine-tune another model.",
        )
