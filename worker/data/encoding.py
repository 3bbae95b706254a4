"""Token ids of rendered chats, in which a row's own text is never read as a control token.

Control tokens are the special tokens, and those that are added to the vocabulary as marks although
they are not flagged as special (Qwen's <think>). Other added tokens are text: Gemma's newlines and
HTML tags, which are ordinary vocabulary as well, runs of spaces, words that somebody added.
"""

import json
import re
import uuid
from collections.abc import Iterable
from typing import Any


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
        vocabulary = _vocabulary(layout["model"])
        template = str(tokenizer.chat_template or "")
        controls = [
            token
            for token in layout["added_tokens"]
            if token["special"] or _is_mark(token["content"], vocabulary, template)
        ]
        self.controls: dict[str, int] = {token["content"]: token["id"] for token in controls}
        """Ids of the control tokens by their text."""
        self._any_control = _any_of(self.controls)
        # Those that are certain to be tokens wherever a rendering has their text.
        self._any_added = _any_of(
            token["content"]
            for token in layout["added_tokens"]
            if not token["single_word"] and not token["normalized"]
        )
        self._normalized = [token["content"] for token in controls if token["normalized"]]
        self._nonce = uuid.uuid4().hex
        self._placeholder = re.compile(f"xp{self._nonce}n([0-9]+)px")
        self._spellings = list(self.controls)
        self._spelling_backend: Any = None

    def protect(self, text: str) -> str:
        """Return the text with a placeholder for everything that would read as a control token."""
        if self._any_control is None:
            return text
        protected = self._any_control.sub(
            lambda match: f"xp{self._nonce}n{self._spellings.index(match[0])}px", text
        )
        if self._normalized and protected == text and self._spells_normalized(text):
            # Only after normalization does it read as one. A placeholder for nothing, at a place
            # where a template strips no space, has it encoded as text.
            nothing = f"xp{self._nonce}n{len(self._spellings)}px"
            protected = re.sub(r"\S", lambda match: match[0] + nothing, text, count=1)
        return protected

    def encode(self, rendered: str) -> list[int]:
        """Return the ids of a rendering of protected texts."""
        if self._nonce not in rendered:
            ids: list[int] = self._backend.encode(rendered, add_special_tokens=False).ids
            return ids
        if self._spelling_backend is None:
            self._spelling_backend = self._without_controls()
        spelled: list[int] = self._spelling_backend.encode(
            self._placeholder.sub(self._spelling, self._alias_controls(rendered)),
            add_special_tokens=False,
        ).ids
        return spelled

    def last_segment(self, rendered: str) -> str:
        """Return what follows the last added token: ids of later text depend on this part alone."""
        start = 0
        if self._any_added is not None:
            for match in self._any_added.finditer(rendered):
                start = match.end()
        return rendered[start:]

    def token_ends(self, text: str) -> list[int]:
        """Return the end, in characters, of each token of a text that is encoded by itself."""
        return [end for _, end in self._backend.encode(text, add_special_tokens=False).offsets]

    def _spelling(self, match: re.Match[str]) -> str:
        index = int(match[1])
        return self._spellings[index] if index < len(self._spellings) else ""

    def _spells_normalized(self, text: str) -> bool:
        if self._backend.normalizer is None:
            return False
        normalized = self._backend.normalizer.normalize_str(text)
        return any(
            self._backend.normalizer.normalize_str(token) in normalized
            for token in self._normalized
        )

    def _alias_controls(self, rendered: str) -> str:
        """Return the rendering with the frame's control tokens under their aliases."""
        assert self._any_control is not None
        return self._any_control.sub(lambda match: self._alias(match[0]), rendered)

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


def _is_mark(token: str, vocabulary: set[str], template: str) -> bool:
    """Return True if an added token that is not special means something to the model."""
    if not token.strip() or token in vocabulary:
        return False
    return token in template or (token.startswith("<") and token.endswith(">"))


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for any of the texts, longest first; None for no texts."""
    if not (distinct := sorted({text for text in texts if text}, key=len, reverse=True)):
        return None
    return re.compile("|".join(map(re.escape, distinct)))
