r"""What a pair of words costs: the softmax, and what is done to avoid its sum over all words.

Shapes everywhere: hidden v (P, d), a row a pair, the centre's vector or the mean of a context; target (P,), the
word to be predicted; output u (W, d), a row a word; negatives (P, K). Each returns (P,), to be made small.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ppmodels.embedding.tree import Tree


def softmax(hidden: Tensor, target: Tensor, output: Tensor) -> Tensor:
    r"""Return :math:`-\log p(o \mid v) = -u_o^\top v + \log \sum_w \exp u_w^\top v`.

    Source: Mikolov et al. (2013), arXiv:1310.4546, equation 2.
    """
    return torch.nn.functional.cross_entropy(hidden @ output.mT, target, reduction="none")


def numerator(hidden: Tensor, target: Tensor, output: Tensor, penalty: float = 0.0) -> Tensor:
    r"""Return :math:`-u_o^\top v + \tfrac\lambda2 (|u_o|^2 + |v|^2)`, the softmax without its sum.

    Nothing pushes words apart: with a penalty below 1 it falls for ever, above 1 every vector shrinks to 0.
    """
    u = output[target]
    return penalty / 2 * (u.square().sum(-1) + hidden.square().sum(-1)) - (u * hidden).sum(-1)


def negative_sampling(hidden: Tensor, target: Tensor, negatives: Tensor, output: Tensor) -> Tensor:
    r"""Return :math:`-\log \sigma(u_o^\top v) - \sum_r \log \sigma(-u_r^\top v)`.

    At the optimum u'v = log p(o | v) / (K q(o)), q the distribution of negatives.

    Source: Mikolov et al. (2013), arXiv:1310.4546, equation 4; Levy and Goldberg (2014), NIPS 27, the optimum.
    """
    return _told_apart(hidden, target, negatives, output, output.new_zeros(len(output)))


def noise_contrastive(hidden: Tensor, target: Tensor, negatives: Tensor, output: Tensor, noise: Tensor) -> Tensor:
    r"""Return the same with :math:`u^\top v - \log K q(w)`: then exp u'v is p(w | v), normalised by itself.

    noise: q (W,). As K grows its gradient becomes that of the softmax.

    Source: Gutmann and Hyvärinen (2012), JMLR 13; Mnih and Kavukcuoglu (2013), NIPS 26.
    """
    return _told_apart(hidden, target, negatives, output, (negatives.shape[-1] * noise).log())


def hierarchical(hidden: Tensor, target: Tensor, nodes: Tensor, tree: Tree) -> Tensor:
    r"""Return :math:`-\sum_{n \in \mathrm{path}(o)} \log \sigma(\pm \theta_n^\top v)`, nodes theta (W - 1, d).

    Source: Morin and Bengio (2005), AISTATS; Mikolov et al. (2013), arXiv:1310.4546, equation 3.
    """
    path, turn, there = tree.path[target], tree.turn[target], tree.on_path[target]  # (P, L) each
    theta = nodes[path.clamp(max=len(nodes) - 1)]  # (P, L, d)
    score = (theta @ hidden[:, :, None])[..., 0]  # (P, L)
    return softplus((2 * turn - 1) * score).where(there, 0.0).sum(-1)


def _told_apart(hidden: Tensor, target: Tensor, negatives: Tensor, output: Tensor, offset: Tensor) -> Tensor:
    positive = (output[target] * hidden).sum(-1) - offset[target]  # (P,)
    others = (output[negatives] @ hidden[:, :, None])[..., 0] - offset[negatives]  # (P, K)
    return -logsigmoid(positive) - logsigmoid(-others).sum(-1)
