"""Binary trees over words: a word's probability is a product of turns, of which there are about log W."""

import heapq
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tree:
    """W leaves, the words, and W - 1 inner nodes, each with a vector of its own.

    path: inner nodes from the root to each word, (W, L), W - 1 where the path has ended. turn: 0 or 1 at each,
    (W, L). depth: how many there are, (W,).
    """

    path: Tensor
    turn: Tensor
    depth: Tensor

    @property
    def on_path(self) -> Tensor:
        """Where `path` holds a node, (W, L)."""
        return torch.arange(self.path.shape[1], device=self.path.device) < self.depth[:, None]

    def to(self, device: torch.device | str) -> "Tree":
        """Return the tree on a device."""
        return Tree(self.path.to(device), self.turn.to(device), self.depth.to(device))


def huffman(counts: Tensor) -> Tree:
    """Return the tree in which a word of count n is about log2(total / n) deep: the least mean depth there is.

    Source: Huffman (1952), Proc. IRE 40; Mikolov et al. (2013), arXiv:1310.4546, section 2.1.
    """
    heap = [(count, leaf) for leaf, count in enumerate(counts.tolist())]
    heapq.heapify(heap)
    parent: dict[int, tuple[int, int]] = {}  # node: its parent, and on which side
    for node in range(len(counts), 2 * len(counts) - 1):
        (rarest, left), (next_rarest, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left], parent[right] = (node, 0), (node, 1)
        heapq.heappush(heap, (rarest + next_rarest, node))
    return _tree(parent, len(counts))


def balanced(words: int) -> Tree:
    """Return a tree in which no word is deeper than log2 W, rounded up."""
    parent: dict[int, tuple[int, int]] = {}
    row = list(range(words))
    made = words
    while len(row) > 1:
        above = []
        for left, right in zip(row[::2], row[1::2], strict=False):
            parent[left], parent[right] = (made, 0), (made, 1)
            above.append(made)
            made += 1
        row = above + row[len(row) - len(row) % 2 :]
    return _tree(parent, words)


def _tree(parent: dict[int, tuple[int, int]], words: int) -> Tree:
    """Paths read upward from each leaf; the root is the last node that was made."""
    if words < 2:
        raise ValueError(f"a tree needs at least two words; there are {words}")
    way: dict[int, tuple[list[int], list[int]]] = {2 * words - 2: ([], [])}
    for node in sorted(parent, reverse=True):  # parents have larger numbers
        above, side = parent[node]
        nodes, sides = way[above]
        way[node] = ([*nodes, above - words], [*sides, side])
    depth = torch.tensor([len(way[word][0]) for word in range(words)])
    path = torch.full((words, int(depth.max())), words - 1)
    turn = torch.zeros(words, int(depth.max()))
    for word in range(words):
        nodes, sides = way[word]
        path[word, : len(nodes)], turn[word, : len(nodes)] = torch.tensor(nodes), torch.tensor(sides, dtype=turn.dtype)
    return Tree(path, turn, depth)
