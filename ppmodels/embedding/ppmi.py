"""Counting instead of predicting: mutual information of words and their neighbours, and its leading directions."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from ppmodels.embedding.tokens import loads, write
from ppmodels.embedding.vectors import WordVectors
from ppmodels.embedding.vocabulary import Sentences, Vocabulary

LOAD = 500_000  # words counted at once


def cooccurrence(
    text: Sentences, vocabulary: Vocabulary, window: int = 5, dynamic: bool = True, workers: int = 1
) -> csr_array:
    """Return how often each word has each other in its window, (W, W), symmetric; the text is read as a stream.

    dynamic: a neighbour at distance j counts (window - j + 1) / window, as often as a random reach sees it.
    """
    words, table = len(vocabulary), csr_array((len(vocabulary), len(vocabulary)))
    with TemporaryDirectory() as folder:
        for load in loads(write(text, vocabulary, Path(folder), workers), LOAD):
            tokens = load.read().astype(np.int64)
            sentence = (tokens < 0).cumsum()
            tokens, sentence = tokens[tokens >= 0], sentence[tokens >= 0]
            for step in range(1, window + 1):
                near = sentence[step:] == sentence[:-step]
                pairs, times = np.unique(tokens[:-step][near] * words + tokens[step:][near], return_counts=True)
                weight = times * ((window - step + 1) / window if dynamic else 1.0)
                table = table + csr_array((weight, (pairs // words, pairs % words)), shape=table.shape)
    return table + table.T


def ppmi(counts: csr_array, shift: float = 0.0, power: float = 1.0) -> csr_array:
    r"""Return :math:`\max(0, \log \frac{p(w, c)}{p(w)\, q(c)} - \text{shift})`, q proportional to p^power, (W, W).

    With shift = log K it is what negative sampling factors.

    Source: Levy and Goldberg (2014), NIPS 27; Levy, Goldberg and Dagan (2015), TACL 3, for the power.
    """
    total = counts.sum()
    if not total > 0:
        raise ValueError("no two words stand together, so there is no mutual information")
    centre, context = counts.sum(1) / total, counts.sum(0) ** power
    inverse = [np.divide(1, p, out=np.zeros_like(p), where=p > 0) for p in (centre, context / context.sum())]
    ratio = (diags_array(inverse[0]) @ counts @ diags_array(inverse[1]) / total).tocsr()
    ratio.data = np.maximum(np.log(ratio.data) - shift, 0)
    ratio.eliminate_zeros()
    return ratio


def ppmi_vectors(
    counts: csr_array, vocabulary: Vocabulary, dim: int = 100, negatives: int = 1, power: float = 0.75
) -> WordVectors:
    r"""Return the vectors :math:`U \sqrt{S}` of the leading singular directions of the shifted PPMI, (W, dim).

    Raises: ValueError when dim is not below the number of words.
    """
    if not 1 <= dim < len(vocabulary):
        raise ValueError(f"dim must be 1 to {len(vocabulary) - 1}, below the number of words; it is {dim}")
    information = ppmi(counts, math.log(negatives), power)
    start = np.random.default_rng(0).normal(size=len(vocabulary))  # the same result every time
    left, values, _ = map(np.asarray, svds(information, dim, v0=start))
    order = values.argsort()[::-1]
    vectors = left[:, order] * np.sqrt(values[order])
    return WordVectors(vocabulary.words, torch.from_numpy(np.ascontiguousarray(vectors)).float())
