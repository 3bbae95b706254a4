"""Shortening of chats that are too long: oldest turns first, then the end of the text."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from worker.data.chat_template import Chat


class TurnsTooLong(Exception):
    """Frame and answer alone are too long, however much of the chat is cut."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing
        """Number of tokens by which they are too long."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """Parts of a chat that were cut, besides the end of its last user turn."""

    history: bool = False
    """Its oldest turns."""
    instruction: bool = False
    """The end of its system turn."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """Shortens chats to a number of tokens; every result is a rendered chat, cut in its texts."""

    prompt: Callable[[Chat], list[int]]
    token_ends: Callable[[str], list[int]]
    """The end, in characters, of each token of a text."""

    def chat(self, chat: Chat, room: int) -> tuple[Chat, Truncation]:
        """Return what is left of the chat when its prompt has at most `room` tokens.

        Cut are the oldest turns after the system turn, then the end of the last user turn, then the
        end of the system turn. Raises TurnsTooLong if the frame alone does not fit.
        """
        first = 1 if chat and chat[0]["role"] == "system" else 0
        users = [index for index, turn in enumerate(chat) if turn["role"] == "user"]
        # Each candidate is shorter than the one before it: find the first that fits.
        candidates = [chat[:first] + chat[start:] for start in users if start > first]
        fitting = bisect_left(candidates, x=True, key=lambda turns: len(self.prompt(turns)) <= room)
        if fitting < len(candidates):
            return candidates[fitting], Truncation(history=True)
        has_history = bool(candidates)
        shortest = candidates[-1] if has_history else chat
        cut, missing = shortest, len(self.prompt(shortest)) - room
        if users:
            last = users[-1] - len(chat)
            cut, missing = self.text(shortest, last, ("", shortest[last]["content"], ""), room)
        if missing and first:
            cut, missing = self.text(cut, 0, ("", cut[0]["content"], ""), room)
            if not missing:
                return cut, Truncation(has_history, instruction=True)
        if missing:
            raise TurnsTooLong(missing)
        return cut, Truncation(has_history)

    def text(
        self, chat: Chat, turn: int, parts: tuple[str, str, str], room: int
    ) -> tuple[Chat, int]:
        """Return the chat with as much of a text as fits, and the number of tokens missing.

        `parts` are the content of turn `turn` before the text, the text, and what follows it. The
        number of missing tokens is 0 unless the prompt is too long without any text.
        """
        before, text, after = parts
        ends = self.token_ends(text)
        tokens, least = len(ends), 1
        excess = len(self.prompt(chat)) - room
        while True:
            # A template may strip spaces, so that a shorter text does not shorten the prompt.
            tokens = max(0, tokens - max(least, excess))
            least *= 2
            shortened = [dict(each) for each in chat]
            shortened[turn]["content"] = before + text[: ends[tokens - 1] if tokens else 0] + after
            excess = len(self.prompt(shortened)) - room
            if excess <= 0 or not tokens:
                return shortened, max(0, excess)
