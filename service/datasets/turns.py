"""The `messages` of an uploaded chat."""

from collections.abc import Iterator
from typing import get_args

from service.datasets.lines import Fields, json_type
from service.datasets.problems import Flaw, bad_character, quoted
from service.datasets.rows import Message, Role

_ROLES = get_args(Role)
_KEYS = ("role", "content", "weight", "name")


def read_messages(fields: Fields, flaws: list[Flaw]) -> tuple[Message, ...] | None:
    """Return the turns of a chat, or None after adding the first flaw of the first bad turn."""
    turns = fields.get("messages")
    if "messages" not in fields:
        keys = ", ".join(quoted(name) for name in list(fields)[:10]) or "no keys"
        detail = f"the key 'messages' is missing; the row has {keys}"
        flaws.append(Flaw("missing_messages", detail, "messages"))
        return None
    if not isinstance(turns, list) or not turns:
        detail = f"must be a list of messages, not {json_type(turns)}"
        if isinstance(turns, list):
            detail = "must hold at least one message"
        flaws.append(Flaw("bad_messages", detail, "messages"))
        return None
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        if flaw := _turn_flaw(turn, f"messages/{index}"):
            flaws.append(flaw)
            return None
        messages.append(Message(turn["role"], turn["content"], _weight(turn)))
    last = f"messages/{len(messages) - 1}"
    if messages[-1].role != "assistant":
        flaws.append(
            Flaw(
                "bad_messages",
                f"the last message must be the assistant's, not the {messages[-1].role}'s",
                f"{last}/role",
            )
        )
    elif not messages[-1].weight:
        detail = (
            "the last message has weight 0, but it is the answer that is learned: set its weight "
            "to 1, or remove the row"
        )
        flaws.append(Flaw("bad_messages", detail, f"{last}/weight"))
    elif not any(message.role == "user" for message in messages):
        flaws.append(
            Flaw("bad_messages", "at least one message must have the role user", "messages")
        )
    return tuple(messages)


def _turn_flaw(turn: object, path: str) -> Flaw | None:
    if not isinstance(turn, dict):
        detail = f"a message must be an object, not {json_type(turn)}"
        return Flaw("bad_messages", detail, path)
    role, content = turn.get("role"), turn.get("content")
    if role not in _ROLES:
        detail = f"the role must be system, user or assistant, not {quoted(role)}"
        return Flaw("bad_messages", detail, f"{path}/role")
    if not isinstance(content, str):
        detail = f"the content must be a string, not {json_type(content)}"
        return Flaw("bad_messages", detail, f"{path}/content")
    if role != "system" and not content.strip():
        return Flaw("blank_text", f"the {role}'s message is empty", f"{path}/content")
    if bad := bad_character(content):
        return Flaw("bad_character", bad, f"{path}/content")
    weight = turn.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        detail = f"the weight must be 0 or 1, not {quoted(weight)}"
        return Flaw("bad_messages", detail, f"{path}/weight")
    if weight and role != "assistant":
        detail = "only the assistant's messages can have weight 1; omit it"
        return Flaw("bad_messages", detail, f"{path}/weight")
    for key, value in turn.items():
        if key not in _KEYS and value is not None:
            detail = f"a message may have only {', '.join(_KEYS)}, not {quoted(key)}"
            return Flaw("bad_messages", detail, path)
    return None


def _weight(turn: Fields) -> int:
    """Return the weight of a message's tokens in the loss, as in OpenAI's format."""
    return 1 if turn.get("weight") is None else int(turn["weight"])


def describe_messages(fields: Fields) -> Iterator[str]:
    """Yield the code of a warning for each thing that is ignored in a valid chat."""
    turns = fields["messages"]
    if any(turn.get("name") is not None for turn in turns):
        yield "ignored_names"
    if any(turn.get("weight") for turn in turns[:-1]):
        yield "ignored_weights"
