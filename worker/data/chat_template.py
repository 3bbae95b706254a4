"""Prompts and answers as the model's own chat template renders them.

A prompt is what ``apply_chat_template(chat, add_generation_prompt=True)`` gives, which is also what
a chat server sends. The answer is what follows it in the rendering of the chat with the assistant's
turn, so that prompt and answer together are that rendering.
"""

import uuid
from collections.abc import Sequence
from datetime import date
from typing import Any

from service.domain.errors import ProgramFailure, first_line
from service.domain.states import FailureReason
from worker.data.prefixes import common_length

Chat = list[dict[str, str]]
"""Turns with `role` and `content`."""

FIXED_DATE = date(2025, 1, 1)
"""The date that is rendered for today's: a resumed run must see the same prompt on another day."""

# A macro takes the place of transformers' function of that name. Its final line break is removed
# with the block before it, and nothing of the template.
_FIXED_DATE_MACRO = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(
        f" | replace('%{directive}', '{FIXED_DATE:%{directive}}')" for directive in "dmYybBaAjHMSp"
    )
    + " }}{%- endmacro %}\n"
)

_THOUGHT_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""Opening and closing marks of a thought, by family of models."""

_MAX_CACHED = 1000
"""Answers cached at a time: a chat's answers may be different in every row."""


class TemplateRefusal(ValueError):
    """The chat template raised an error on a chat, such as two user turns in a row."""


class ChatTemplate:
    """Renders chats; caches what depends on the sequence of roles alone."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.source: str | None = None
        """Text of the template, with a fixed date for today's."""
        if tokenizer.chat_template is not None:
            self.source = tokenizer.get_chat_template()
        self.prints_date = self.source is not None and "strftime_now" in self.source
        if self.source is not None and self.prints_date:
            self.source = _FIXED_DATE_MACRO + self.source
        self.thought_opener: str | None = None
        """The mark with which the prompt opens a thought that the answer has to close."""
        self._takes_system: dict[tuple[str, ...], bool] = {}
        self._last_frame: tuple[Chat, str, str] | None = None
        self._answers: dict[tuple[tuple[str, ...], str, str, str], str] = {}

    @property
    def is_absent(self) -> bool:
        """True for a tokenizer without a chat template: turns are then paragraphs."""
        return self.source is None

    def adapt(self, chat: Chat) -> Chat:
        """Return the chat with the system turn before the user's text, if it cannot stay a turn.

        Raises TemplateRefusal, and ProgramFailure(model_unavailable) for an unusable template.
        """
        if self.source is None:
            return chat
        roles = _roles(chat)
        if roles not in self._takes_system:
            self._takes_system[roles] = self._check(roles)
        return chat if self._takes_system[roles] else _merge_system(chat)

    def prompt(self, chat: Chat, **arguments: bool) -> str:
        """Return the prompt of an adapted chat, with more arguments for the template.

        Raises TemplateRefusal.
        """
        if self.source is None:
            return "\n\n".join(turn["content"] for turn in chat) + "\n"
        return self._apply(chat, is_prompt=True, **arguments)

    def answer(self, chat: Chat, prompt: str, answer: str) -> str:
        """Return what follows the prompt of an adapted chat: the answer, up to its end of turn.

        It begins with whatever the template puts between prompt and answer, such as an empty
        thought. Raises TemplateRefusal, and ProgramFailure(model_unavailable) for an unusable
        template.
        """
        if self.source is None:
            return answer
        frame, closing = self._frame(chat)
        opening = self._opening(prompt, frame, chat[-1]["content"].strip())
        key = (_roles(chat), opening, closing, answer)
        if (cached := self._answers.get(key)) is not None:
            return cached
        content = self._content(chat, answer, frame, closing)
        if len(self._answers) >= _MAX_CACHED:
            self._answers.clear()
        return self._answers.setdefault(key, opening + content + self._end_of_turn(closing))

    def _frame(self, chat: Chat) -> tuple[str, str]:
        """Return the renderings of the chat before an answer and behind it.

        Each chat has its own, since contents may decide on it; the last one is cached.
        """
        if self._last_frame is None or self._last_frame[0] != chat:
            mark = _mark()
            rendered = self._apply([*chat, new_turn("assistant", mark)], is_prompt=False)
            frame, is_rendered, closing = rendered.rpartition(mark)
            if not is_rendered:
                raise unusable_template("omits the assistant's answer")
            self._last_frame = chat, frame, closing
        return self._last_frame[1:]

    def _opening(self, prompt: str, frame: str, last_text: str) -> str:
        """Return what stands between the prompt and the answer.

        `frame` is the rendered chat before the answer.
        """
        if frame.startswith(prompt):
            return frame[len(prompt) :]
        # The prompt is no part of the rendered chat: the answer follows it all the same, after the
        # end of a thought that the prompt opens.
        if last_text:  # earlier turns may be rendered in another way once there is an answer
            prompt, frame = (text.rpartition(last_text)[2] for text in (prompt, frame))
            if frame.startswith(prompt):
                return frame[len(prompt) :]
        return self._end_of_thought(prompt[common_length([prompt, frame]) :])

    def _content(self, chat: Chat, answer: str, frame: str, closing: str) -> str:
        """Return the answer as the template renders it between `frame` and `closing`."""
        whole = self._apply([*chat, new_turn("assistant", answer)], is_prompt=False)
        if not whole.startswith(frame) or not whole.endswith(closing):
            raise unusable_template("renders the assistant's answer together with other turns")
        return whole[len(frame) : len(whole) - len(closing)]

    def _end_of_turn(self, closing: str) -> str:
        """Return the end of the answer's turn: nothing behind EOS is ever generated."""
        end = closing.find(self._tokenizer.eos_token)
        return closing if end < 0 else closing[: end + len(self._tokenizer.eos_token)]

    def _end_of_thought(self, opening: str) -> str:
        for opener, closer in _THOUGHT_MARKS:
            if opener in opening and closer not in opening[opening.rfind(opener) :]:
                self.thought_opener = opener
                return f"\n{closer}\n\n"
        return ""

    def _check(self, roles: tuple[str, ...]) -> bool:
        """Return True if the template renders a chat of these roles with a system turn of its own.

        True as well for roles without a system turn. Raises TemplateRefusal and ProgramFailure.
        """
        refusal: TemplateRefusal | None = None
        try:
            if self._renders_all([new_turn(role, _mark()) for role in roles]):
                return True
        except TemplateRefusal as error:
            refusal = error
        if roles[:2] == ("system", "user"):
            # Some models have no system turn: the instruction is then put before the user's text.
            if self._renders_all(_merge_system([new_turn(role, _mark()) for role in roles])):
                return False
        elif refusal is not None:
            raise refusal
        raise unusable_template(
            f"omits or reorders turns of the chat ({', '.join((*roles, 'assistant'))})"
        )

    def _renders_all(self, chat: Chat) -> bool:
        """Return True if the prompt contains all turns, and the answer follows the last of them.

        Some templates put the system turn into the last user turn, and only while none follows it.
        """
        prompt = self._apply(chat, is_prompt=True)
        answer = new_turn("assistant", _mark())
        whole = self._apply([*chat, answer], is_prompt=False)
        contents = [turn["content"] for turn in chat]
        before, is_rendered, behind = whole.partition(answer["content"])
        return (
            bool(is_rendered)
            and all(content in prompt for content in contents)
            and all(content in before for content in contents[-1:])
            and not any(content in behind for content in contents)
        )

    def _apply(self, chat: Chat, *, is_prompt: bool, **arguments: bool) -> str:
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                chat,
                tokenize=False,
                chat_template=self.source,
                add_generation_prompt=is_prompt,
                **arguments,
            )
        except Exception as error:  # whatever the template's code raises
            raise TemplateRefusal(first_line(error)) from error
        return rendered


def _merge_system(chat: Chat) -> Chat:
    system, user, *others = chat
    return [new_turn("user", f"{system['content']}\n\n{user['content']}"), *others]


def new_turn(role: str, content: str) -> dict[str, str]:
    """Return a turn of a chat."""
    return {"role": role, "content": content}


def _roles(chat: Sequence[dict[str, str]]) -> tuple[str, ...]:
    return tuple(turn["role"] for turn in chat)


def _mark() -> str:
    """Return a text that is in no chat. Digits alone stay as they are in any case of letters."""
    return str(uuid.uuid4().int)


def unusable_template(fault: str) -> ProgramFailure:
    """Return the failure of a chat template that no row can be rendered with."""
    return ProgramFailure(
        FailureReason.MODEL_UNAVAILABLE,
        "base_model: its chat template (chat_template.jinja, or chat_template in "
        f"tokenizer_config.json) {fault}. Correct the template, restore the one that the model was "
        "published with, or fine-tune another variant of the model.",
    )
