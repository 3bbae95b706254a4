"""Trie of several answers, so that the model reads their common parts once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from worker.data.prefixes import common_length


@dataclass(frozen=True, slots=True)
class Trie:
    """Answers as a trie behind their common prefix.

    A node is a token with a successor in some answer, which the model therefore has to read. Nodes
    are in pre-order: each one is followed by its descendants. They are numbered from 1; 0 is the
    root, the last token of the common prefix. A step (node, token) stands for the probability of
    that token right after the node.
    """

    shared: list[int]
    """The common prefix of all answers."""
    tokens: list[int]
    """Token of each node, from node 1 on."""
    depths: list[int]
    """Depth of each node: 0 directly below the root."""
    below: list[int]
    """Number of descendants of each node: they are the next nodes."""
    steps: list[tuple[int, int]]
    """The distinct steps of all answers, sorted."""
    paths: list[list[int]]
    """For each answer, in the order of the arguments, the indices of its steps from the root."""

    @classmethod
    def of(cls, answers: Sequence[list[int]]) -> "Trie":
        """Build the trie; answers may be equal, and one may be a prefix of another."""
        shared = common_length(answers)
        ends = [tuple(answer[shared:]) for answer in answers]
        # A node is represented by its path. Sorted, a prefix comes before its continuations.
        nodes = sorted({end[:length] for end in ends for length in range(1, len(end))})
        number = {node: index for index, node in enumerate([(), *nodes])}
        subtree = Counter(node[:length] for node in nodes for length in range(1, len(node) + 1))
        answer_steps = [
            [(number[end[:depth]], token) for depth, token in enumerate(end)] for end in ends
        ]
        steps = sorted({step for path in answer_steps for step in path})
        index_of = {step: index for index, step in enumerate(steps)}
        return cls(
            shared=answers[0][:shared],
            tokens=[node[-1] for node in nodes],
            depths=[len(node) - 1 for node in nodes],
            below=[subtree[node] - 1 for node in nodes],
            steps=steps,
            paths=[[index_of[step] for step in path] for path in answer_steps],
        )
