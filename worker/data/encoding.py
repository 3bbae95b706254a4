"""Token ids of rendered chats, in which a row's own text is never read as a control token.

Control tokens are the special tokens, those that are added to the vocabulary as marks although they
are not flagged as special (Qwen's <think>), and those that the tokenizer names as such. Other added
tokens are text: Gemma's newlines and HTML tags, which are ordinary vocabulary as well, runs of
spaces, words that somebody added.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from service.domain.errors import first_line


class EncodingFailure(ValueError):
    """The tokenizer raised an error on a text, such as one with an unpaired surrogate."""


@contextmanager
def _tokenizer_errors() -> Iterator[None]:
    """Raise EncodingFailure for any exception of the tokenizer inside."""
    try:
        yield
    except Exception as error:
        raise EncodingFailure(first_line(error)) from error
    except BaseException as error:
        # A panic in the Rust code of tokenizers is not an Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise EncodingFailure(first_line(error)) from error


class Encoder:
    """Encodes one rendered string at a time, as the tokenizer itself does.

    Text that spells a control token is protected before it is rendered, and is spelled out in the
    ids; all other ids are the tokenizer's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        layout = json.loads(self._backend.to_str())
        controls = _controls(layout, tokenizer)
        self.controls: dict[str, int] = {token["content"]: token["id"] for token in controls}
        """Ids of the control tokens by their text."""
        self._any_control = _any_of(self.controls)
        # Those that are certain to be tokens wherever a rendering has their text.
        self._any_added = _any_of(
            token["content"]
            for token in layout["added_tokens"]
            if not token["single_word"] and not token["normalized"]
        )
        # Digits alone, which no template changes in a text.
        self._nonce = str(uuid.uuid4().int)
        self._placeholder = re.compile(f"{self._nonce}([0-9]{{6}})")
        self._spellings = list(self.controls)
        self._spelling_backend: Any = None

    def protect(self, text: str) -> str:
        """Return the text with a placeholder for everything that would read as a control token.

        Raises EncodingFailure.
        """
        if self._any_control is None:
            return text
        protected = self._any_control.sub(
            lambda match: self._placeholder_for(self._spellings.index(match[0])), text
        )
        if protected == text and self._spells_when_normalized(text):
            # Only after normalization does it read as one. A placeholder for nothing, at a place
            # where a template strips no space, has it encoded as text.
            nothing = self._placeholder_for(len(self._spellings))
            protected = re.sub(r"\S", lambda match: match[0] + nothing, text, count=1)
        return protected

    def encode(self, rendered: str) -> list[int]:
        """Return the ids of a rendering of protected texts. Raises EncodingFailure."""
        ids: list[int] = self._encoding(rendered).ids
        return ids

    def last_segment(self, rendered: str) -> str:
        """Return what follows the last added token: ids of later text depend on this part alone."""
        start = 0
        if self._any_added is not None:
            for match in self._any_added.finditer(rendered):
                start = match.end()
        return rendered[start:]

    def token_ends(self, text: str) -> list[int]:
        """Return the end, in characters, of each token of a text that is encoded by itself.

        Raises EncodingFailure.
        """
        return [end for _, end in self._encoding(self.protect(text)).offsets]

    def _encoding(self, rendered: str) -> Any:
        with _tokenizer_errors():
            if self._nonce not in rendered:
                return self._backend.encode(rendered, add_special_tokens=False)
            if self._spelling_backend is None:
                self._spelling_backend = self._without_controls()
            spelled = self._placeholder.sub(self._spelling, self._alias_controls(rendered))
            return self._spelling_backend.encode(spelled, add_special_tokens=False)

    def _placeholder_for(self, index: int) -> str:
        return f"{self._nonce}{index:06d}"

    def _spelling(self, match: re.Match[str]) -> str:
        index = int(match[1])
        return self._spellings[index] if index < len(self._spellings) else ""

    def _spells_when_normalized(self, text: str) -> bool:
        """Return True if normalization turns a part of the text into a control token.

        The token itself may be normalized, and the vocabulary may contain its text as it is.
        """
        normalizer = self._backend.normalizer
        if normalizer is None:
            return False
        with _tokenizer_errors():
            normalized = normalizer.normalize_str(text)
            return any(
                token in normalized or normalizer.normalize_str(token) in normalized
                for token in self.controls
            )

    def _alias_controls(self, rendered: str) -> str:
        """Return the rendering with the frame's control tokens under their aliases.

        Those are where the tokenizer finds them: some are none within words. Only a frame has their
        very text, since that of contents is protected.
        """
        encoding = self._backend.encode(rendered, add_special_tokens=False)
        texts = {index: text for text, index in self.controls.items()}
        parts, position = [], 0
        for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            span = rendered[start:end].strip()  # without the spaces that a token may take with it
            if texts.get(index) == span:
                at = rendered.index(span, start)
                parts += [rendered[position:at], self._alias(span)]
                position = at + len(span)
        return "".join([*parts, rendered[position:]])

    def _alias(self, control: str) -> str:
        return f"xq{self._nonce}n{self.controls[control]}qx"

    def _without_controls(self) -> Any:
        """Return the same tokenizer with control tokens under aliases that no text can contain."""
        from tokenizers import Tokenizer

        layout = json.loads(self._backend.to_str())
        layout |= {"post_processor": None, "truncation": None, "padding": None}
        aliases = {control: self._alias(control) for control in self.controls}
        for token in layout["added_tokens"]:
            token["content"] = aliases.get(token["content"], token["content"])
        _rename(layout["model"], aliases)
        return Tokenizer.from_str(json.dumps(layout))


def _controls(layout: dict[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """Return the added tokens that mean something to the model, as tokenizer.json has them."""
    vocabulary = _vocabulary(layout["model"])
    template = "" if tokenizer.chat_template is None else tokenizer.get_chat_template()
    named = {*tokenizer.all_special_tokens, *(tokenizer.chat_control_tokens or ())}

    def is_control(token: str) -> bool:
        if token in named:
            return True
        looks_like_mark = (token[:1], token[-1:]) in (("<", ">"), ("[", "]"))
        if token in vocabulary:  # as Gemma's HTML tags are
            return looks_like_mark and token in template
        return bool(token.strip()) and (looks_like_mark or token in template)

    return [
        token
        for token in layout["added_tokens"]
        if token["special"] or is_control(token["content"])
    ]


def _vocabulary(model: dict[str, Any]) -> set[str]:
    vocabulary = model.get("vocab", {})
    if isinstance(vocabulary, dict):
        return set(vocabulary)
    return {piece for piece, _score in vocabulary}


def _rename(model: dict[str, Any], aliases: dict[str, str]) -> None:
    """Give tokens of the vocabulary other names, so that no text is encoded as one of them."""
    vocabulary = model.get("vocab", {})
    if isinstance(vocabulary, dict):
        model["vocab"] = {aliases.get(piece, piece): index for piece, index in vocabulary.items()}
    else:
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") is not None:
        model["unk_token"] = aliases.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [
            pair for pair in pairs if aliases.keys().isdisjoint((*pair, "".join(pair)))
        ]


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for any of the texts, longest first; None for no texts."""
    if not (distinct := sorted({text for text in texts if text}, key=len, reverse=True)):
        return None
    return re.compile("|".join(map(re.escape, distinct)))
