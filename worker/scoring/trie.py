"""Several answers as a trie: what some of them share is read once by the model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from worker.data.prefixes import common_length


@dataclass(frozen=True, slots=True)
class Trie:
    """A node is a token that some answer goes on from, so a model has to read it.

    Nodes are in pre-order: behind each one stand those below it. They are numbered from 1; 0 is the
    fork, the last token that all answers share. A likelihood needs steps: (node, token) is that
    token's coming right after the node.
    """

    shared: list[int]
    """What all answers begin with."""
    tokens: list[int]
    """Of the nodes, 1 first."""
    depths: list[int]
    """Of the nodes: 0 right behind the fork."""
    below: list[int]
    """How many nodes stand below each one: those are the next ones."""
    steps: list[tuple[int, int]]
    """Every step that is on some answer's path, once."""
    paths: list[list[int]]
    """Of each answer, in the given order: which steps lead from the fork to its end."""

    @classmethod
    def of(cls, answers: Sequence[list[int]]) -> "Trie":
        """Answers may be alike, and one may be the beginning of another."""
        shared = common_length(answers)
        ends = [tuple(answer[shared:]) for answer in answers]
        # A node is written as what leads to it. Sorted, a beginning stands before what it begins.
        nodes = sorted({end[:length] for end in ends for length in range(1, len(end))})
        number = {node: place for place, node in enumerate([(), *nodes])}
        subtree = Counter(node[:length] for node in nodes for length in range(1, len(node) + 1))
        ways = [[(number[end[:at]], token) for at, token in enumerate(end)] for end in ends]
        steps = sorted({step for way in ways for step in way})
        place = {step: at for at, step in enumerate(steps)}
        return cls(
            shared=answers[0][:shared],
            tokens=[node[-1] for node in nodes],
            depths=[len(node) - 1 for node in nodes],
            below=[subtree[node] - 1 for node in nodes],
            steps=steps,
            paths=[[place[step] for step in way] for way in ways],
        )
