"""Prompts and answers as the model's own chat template renders them.

A prompt is what ``apply_chat_template(chat, add_generation_prompt=True)`` gives, which is also what
a chat server sends. The answer is what follows it in the rendering of the chat with the assistant's
turn, so that prompt and answer together are that rendering.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.data.prefixes import common_length

Chat = list[dict[str, str]]
"""Turns with `role` and `content`."""

# Some chat templates print the current date. A resumed run must see the same prompt on another day.
_FIXED_DATE_MACRO = (
    "{%- macro strftime_now(pattern) -%}"
    "{%- if pattern == '%d %b %Y' -%}01 Jan 2025{%- else -%}2025-01-01{%- endif -%}"
    "{%- endmacro -%}"
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
        self._template: str | None = None
        if tokenizer.chat_template is not None:
            self._template = tokenizer.get_chat_template()
        self.prints_date = self._template is not None and "strftime_now" in self._template
        self.thought_opener: str | None = None
        """The mark with which the prompt opens a thought that the answer has to close."""
        self._takes_system: dict[tuple[str, ...], bool] = {}
        self._answers: dict[tuple[tuple[str, ...], str], str] = {}

    @property
    def is_absent(self) -> bool:
        """True for a tokenizer without a chat template: turns are then paragraphs."""
        return self._template is None

    def adapt(self, chat: Chat) -> Chat:
        """Return the chat with the system turn before the user's text, if it cannot stay a turn.

        Raises TemplateRefusal, and ProgramFailure(invalid_spec) for an unusable template.
        """
        if self._template is None:
            return chat
        roles = tuple(turn["role"] for turn in chat)
        if roles not in self._takes_system:
            self._takes_system[roles] = self._check(roles)
        return chat if self._takes_system[roles] else _merge_system(chat)

    def prompt(self, chat: Chat, **arguments: bool) -> str:
        """Return the prompt of an adapted chat, with more arguments for the template.

        Raises TemplateRefusal.
        """
        if self._template is None:
            return "\n\n".join(turn["content"] for turn in chat) + "\n"
        return self._apply(chat, is_prompt=True, **arguments)

    def answer(self, chat: Chat, answer: str) -> str:
        """Return what follows the prompt of an adapted chat: the answer and its end of turn.

        It begins with whatever the template puts between prompt and answer, such as an empty
        thought. Raises TemplateRefusal, and ProgramFailure(invalid_spec) for an unusable template.
        """
        if self._template is None:
            return answer
        key = (tuple(turn["role"] for turn in chat), answer)
        if (cached := self._answers.get(key)) is not None:
            return cached
        if len(self._answers) >= _MAX_CACHED:
            self._answers.clear()
        return self._answers.setdefault(key, self._answer(chat, answer))

    def _answer(self, chat: Chat, answer: str) -> str:
        prompt = self.prompt(chat)
        whole = self._apply([*chat, new_turn("assistant", answer)], is_prompt=False)
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        mark = _mark()
        marked = self._apply([*chat, new_turn("assistant", mark)], is_prompt=False)
        start = marked.rfind(mark)
        if whole[:start] != marked[:start]:
            raise _unusable("renders the assistant's answer together with other turns")
        # The prompt has more than the rendered turn: the answer follows it all the same, after the
        # end of a thought that the prompt opens.
        return self._end_of_thought(prompt[common_length([prompt, whole]) :]) + whole[start:]

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
        raise _unusable(f"omits or reorders turns of the chat ({', '.join(roles)}, assistant)")

    def _renders_all(self, chat: Chat) -> bool:
        """Return True if prompt and whole chat contain the contents of all turns in order."""
        whole = [*chat, new_turn("assistant", _mark())]
        renderings = ((chat, True), (whole, False))
        return all(
            _in_order(self._apply(turns, is_prompt=is_prompt), turns)
            for turns, is_prompt in renderings
        )

    def _apply(self, chat: Chat, *, is_prompt: bool, **arguments: bool) -> str:
        from jinja2 import TemplateSyntaxError

        template = self._template or ""
        if self.prints_date:
            template = _FIXED_DATE_MACRO + template
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                chat,
                tokenize=False,
                chat_template=template,
                add_generation_prompt=is_prompt,
                **arguments,
            )
        except TemplateSyntaxError as error:
            raise _unusable(f"does not parse (line {error.lineno}: {error.message})") from error
        except Exception as error:  # whatever the template's code raises
            raise TemplateRefusal(str(error) or type(error).__name__) from error
        return rendered


def _merge_system(chat: Chat) -> Chat:
    system, user, *others = chat
    return [new_turn("user", f"{system['content']}\n\n{user['content']}"), *others]


def new_turn(role: str, content: str) -> dict[str, str]:
    """Return a turn of a chat."""
    return {"role": role, "content": content}


def _mark() -> str:
    return f"X{uuid.uuid4().hex}X"


def _in_order(rendered: str, chat: Sequence[dict[str, str]]) -> bool:
    for turn in chat:
        _, mark, rendered = rendered.partition(turn["content"])
        if not mark:
            return False
    return True


def _unusable(fault: str) -> ProgramFailure:
    return ProgramFailure(
        FailureReason.INVALID_SPEC,
        f"base_model: its chat template {fault}; fine-tune another variant of the model.",
    )
