"""Losses of a pair, the tree, and the block form that training climbs: gradients, optima, and limits."""

import math

import pytest
import torch
from scipy.stats import chisquare

from ppmodels.embedding import loss
from ppmodels.embedding._layer import identity
from ppmodels.embedding._objective import Hierarchical, Sampled, Softmax
from ppmodels.embedding._step import Prediction, ascend
from ppmodels.embedding.tree import balanced, huffman
from ppmodels.embedding.windows import blocks, pairs
from tests.draws import normal

F64 = torch.float64


def test_pairs_of_a_sentence_of_six_words():
    sentence = torch.tensor([5, 3, 1, 4, 0, 2])
    assert pairs(sentence, 1).tolist() == [
        [5, 3], [3, 5], [3, 1], [1, 3], [1, 4], [4, 1], [4, 0], [0, 4], [0, 2], [2, 0],
    ]  # fmt: skip
    assert len(pairs(sentence, 2)) == 2 * 5 + 2 * 4
    assert len(pairs(sentence, 5)) == 30
    dynamic = pairs(sentence, torch.tensor([0, 2, 0, 1, 0, 0]))
    assert dynamic.tolist() == [[3, 5], [3, 1], [3, 4], [4, 1], [4, 0]]
    assert pairs(torch.tensor([7]), 3).shape == (0, 2)  # one word has no neighbour


def windows(block=4, window=2, seed=0):
    """Three sentences, one of them of a single word, padded to whole blocks; and their pairs, by hand."""
    generator = torch.Generator().manual_seed(seed)
    lengths, reach = [7, 1, 5], torch.randint(1, window + 1, (16,), generator=generator)
    sentences = [torch.randint(9, (n,), generator=generator) for n in lengths]
    starts = [0, 7, 8]
    by_hand = [pairs(s, reach[a : a + n]) for s, a, n in zip(sentences, starts, lengths, strict=True)]
    tokens = torch.nn.functional.pad(torch.cat(sentences), (window, 3 + window))
    number = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    sentence = torch.nn.functional.pad(number, (window, 3 + window), value=-1)
    return blocks(tokens, sentence, reach, window, F64, block), torch.cat(by_hand)


@pytest.mark.parametrize("block", [1, 4, 8, 16])
def test_blocks_hold_the_pairs_and_no_others(block):
    batch, by_hand = windows(block)
    n, row, column = batch.near.nonzero(as_tuple=True)
    found = torch.stack([batch.centre[n, row], batch.around[n, column]], -1)
    assert sorted(found.tolist()) == sorted(by_hand.tolist())


NOISE = normal(9).softmax(-1)
OBJECTIVES = {
    "negative": Sampled(NOISE, False, 3, drawn=5),
    "nce": Sampled(NOISE, True, 3, drawn=5),
    "hierarchical": Hierarchical(huffman(torch.tensor([40, 20, 11, 9, 5, 4, 3, 2, 1])), shared=3),
    "softmax": Softmax(9),
}


def by_pairs(name, objective, hidden, targets, columns, output):
    """The same objective, pair by pair, from the losses as the papers write them; hidden (P, d)."""
    if name == "softmax":
        return loss.softmax(hidden, targets, output).sum()
    if name == "hierarchical":
        return loss.hierarchical(hidden, targets, output, objective.tree).sum()
    each = objective.number / objective.drawn  # the pair's negatives are the block's, each counting for less
    negatives = columns[:, -objective.drawn :]
    if name == "negative":
        whole = loss.negative_sampling(hidden, targets, negatives, output).sum()
        first = loss.negative_sampling(hidden, targets, negatives[:, :0], output).sum()
    else:  # its offset is log of the number that is counted, not of those drawn
        scaled = NOISE * (objective.number / objective.drawn)
        whole = loss.noise_contrastive(hidden, targets, negatives, output, scaled).sum()
        positive = (output[targets] * hidden).sum(-1) - (objective.number * NOISE[targets]).log()
        first = -torch.nn.functional.logsigmoid(positive).sum()
    return first + each * (whole - first)


@pytest.mark.parametrize("way", ["skip-gram", "cbow", "cbow with a layer"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_is_along_the_gradient_of_the_papers_loss(name, way):
    objective, (batch, _), cbow = OBJECTIVES[name], windows(), way != "skip-gram"
    v = normal(9 + 4 * (way == "cbow with a layer"), 3).requires_grad_()
    u = normal(8 if name == "hierarchical" else 9, 3, seed=1).requires_grad_()
    told = Prediction.of(batch, objective, cbow, torch.Generator().manual_seed(5))
    n, column, row = told.positive.nonzero(as_tuple=True)
    if cbow:  # the mean of the neighbours, by hand
        around = [batch.around[i][batch.near[i, r] > 0] for i, r in zip(n.tolist(), row.tolist(), strict=True)]
        rows = torch.stack([v[a].mean(0) for a in around])
        rows = (rows @ v[9:12] + v[12]).tanh() if "layer" in way else rows
    else:
        rows = v[(batch.around if objective.inward else batch.centre)[n, row]]
    total = by_pairs(name, objective, rows, told.targets[n, column], told.columns.rows[n], u)
    slope_v, slope_u = torch.autograd.grad(total, [v, u])
    moved_v, moved_u = v.detach().clone(), u.detach().clone()
    mean_loss = ascend(told, moved_v, moved_u, objective, 0.1, told=True, layered="layer" in way)
    assert torch.allclose(moved_v - v, -0.1 * slope_v, atol=1e-7)  # offsets are float32
    assert torch.allclose(moved_u - u, -0.1 * slope_u, atol=1e-7)
    assert mean_loss == pytest.approx(total.item() / len(n), rel=1e-6)


def test_pairs_read_inward_are_those_read_outward():
    """Where no window is shortened."""
    sentence = torch.randint(9, (16,), generator=torch.Generator().manual_seed(0))
    tokens = torch.nn.functional.pad(sentence, (2, 2))
    place = torch.nn.functional.pad(torch.zeros(16, dtype=torch.long), (2, 2), value=-1)
    batch = blocks(tokens, place, torch.full((16,), 2), 2, F64, 4)
    found = {}
    for objective in (OBJECTIVES["hierarchical"], OBJECTIVES["negative"]):
        told = Prediction.of(batch, objective, False, torch.Generator().manual_seed(5))
        steps = [*told.split(2)]
        assert [len(part.rows) for part in steps] == [2, 2]
        found[objective.inward] = []
        for part in steps:
            n, column, row = part.positive.nonzero(as_tuple=True)
            found[objective.inward] += torch.stack([part.rows[n, row], part.targets[n, column]], -1).tolist()
    assert sorted(found[True]) == sorted(found[False]) == sorted(pairs(sentence, 2).tolist())


def test_a_layer_tells_what_the_mean_alone_cannot():
    """The word between two others is told by whether they are alike: XOR, of which a sum of scores knows nothing."""
    context = torch.tensor([[0, 2], [0, 3], [1, 2], [1, 3]])
    middle, ones = torch.tensor([[4], [5], [5], [4]]), torch.ones(4, 1, 1, dtype=F64)
    found = {}
    for layered in (False, True):
        objective = Softmax(6)
        columns = objective.columns(middle, torch.Generator())
        told = Prediction(context, ones.expand(4, 1, 2) / 2, middle, ones, columns)
        v, u = torch.cat([normal(6, 4), identity(4).double()])[: 11 if layered else 6], normal(6, 4, seed=1)
        for _ in range(1500):
            ascend(told, v, u, objective, 0.1, layered=layered)
        found[layered] = ascend(told, v, u, objective, 0.0, told=True, layered=layered)
    assert found[False] > math.log(2) - 1e-3
    assert found[True] < 0.05


def test_softmax_at_zero_is_log_w_and_its_gradient_is_probability_minus_truth():
    hidden, target = normal(6, 4), torch.tensor([0, 1, 1, 4, 8, 2])
    assert torch.allclose(
        loss.softmax(hidden, target, torch.zeros(9, 4, dtype=F64)), torch.tensor(math.log(9), dtype=F64)
    )
    output = normal(9, 4, seed=1).requires_grad_()
    (slope,) = torch.autograd.grad(loss.softmax(hidden, target, output).sum(), output)
    p = (hidden @ output.detach().mT).softmax(-1)
    assert torch.allclose(slope, (p - torch.nn.functional.one_hot(target, 9)).mT @ hidden, atol=1e-12)


def maximise(function, *leaves):
    """Minimise by L-BFGS."""
    optimiser = torch.optim.LBFGS(leaves, max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, history_size=30,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimiser.zero_grad()
        value = function()
        value.backward()
        return value

    optimiser.step(closure)
    return function().item()


def test_full_softmax_reaches_the_conditional_entropy():
    counts = torch.randint(1, 20, (4, 4), generator=torch.Generator().manual_seed(0)).double()
    centre, context = counts.nonzero(as_tuple=True)
    v, u = (normal(4, 4, seed=s).mul(0.1).requires_grad_() for s in (1, 2))
    joint = counts / counts.sum()
    entropy = -(joint * (counts / counts.sum(1, keepdim=True)).log()).sum()
    weight = joint[centre, context]
    least = maximise(lambda: (weight * loss.softmax(v[centre], context, u)).sum(), v, u)
    assert least == pytest.approx(float(entropy), abs=1e-6)


@pytest.mark.parametrize("words", [2, 3, 9, 64, 100])
def test_trees_give_probabilities_over_all_words(words):
    counts = torch.randint(1, 1000, (words,), generator=torch.Generator().manual_seed(words))
    for tree in (huffman(counts), balanced(words)):
        hidden, nodes = normal(5, 4), normal(words - 1, 4, seed=1)
        each = [loss.hierarchical(hidden, torch.full((5,), w), nodes, tree) for w in range(words)]
        assert torch.allclose(torch.stack(each).neg().exp().sum(0), torch.ones(5, dtype=F64), rtol=0, atol=1e-10)
    assert int(balanced(words).depth.max()) <= math.ceil(math.log2(words))
    p = counts.double() / counts.sum()
    entropy = float(-(p * p.log2()).sum())
    assert entropy <= float((p * huffman(counts).depth).sum()) < entropy + 1


def test_a_word_of_a_tree_touches_log_w_nodes():
    nodes = torch.zeros(1023, 4, dtype=F64, requires_grad=True)
    loss.hierarchical(normal(1, 4), torch.tensor([700]), nodes, balanced(1024)).sum().backward()
    assert int((nodes.grad.abs().sum(-1) > 0).sum()) == 10
    with pytest.raises(ValueError, match="at least two words"):
        balanced(1)


def test_negatives_are_drawn_from_the_noise():
    noise = torch.tensor([50.0, 30, 15, 4, 1], dtype=F64) ** 0.75
    objective = Sampled(noise / noise.sum(), False, 5, drawn=1000)
    drawn = objective.columns(torch.zeros(20, 0, dtype=torch.long), torch.Generator().manual_seed(0))
    seen = torch.bincount(drawn.rows.flatten(), minlength=5).numpy()
    assert chisquare(seen, 20000 * (noise / noise.sum()).numpy()).pvalue > 0.01


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("power", [1.0, 0.75])
def test_the_optimum_of_negative_sampling_is_shifted_mutual_information(number, power):
    counts = torch.tensor([[6.0, 3, 2, 1], [2, 8, 1, 4], [1, 2, 5, 3], [4, 1, 3, 2]], dtype=F64)
    unigram = counts.sum(0)
    noise = unigram**power / (unigram**power).sum()
    v, u = (normal(4, 4, seed=s).requires_grad_() for s in (1, 2))
    words = torch.arange(4)
    negatives = words.expand(16, -1)  # every word once: the expectation, with the noise for weights

    def expected():
        centre, context = counts.nonzero(as_tuple=True)
        alone = loss.negative_sampling(v[centre], context, negatives[:, :0], u)
        apart = loss.negative_sampling(v[centre, None].expand(-1, 4, -1).flatten(0, 1), context.repeat_interleave(4),
                                       words.repeat(16)[:, None], u)  # fmt: skip
        apart = apart.view(16, 4) - alone[:, None]
        return (counts[centre, context] * (alone + number * (apart * noise).sum(-1))).sum() / counts.sum()

    maximise(expected, v, u)
    conditional = counts / counts.sum(1, keepdim=True)
    found = (v @ u.mT).detach()
    assert torch.allclose(found, (conditional / (number * noise)).log(), atol=1e-2)
    information = (conditional / (unigram / unigram.sum())).log() - math.log(number)
    assert torch.allclose(found, information, atol=1e-2) == (power == 1)


def test_noise_contrasts_become_maximum_likelihood_as_negatives_grow():
    counts = torch.randint(1, 9, (5, 5), generator=torch.Generator().manual_seed(1)).double()
    centre, context = counts.nonzero(as_tuple=True)
    scores = normal(5, 5).log_softmax(-1)  # normalised, as the model is where the two are compared
    noise = torch.tensor([0.3, 0.3, 0.2, 0.1, 0.1], dtype=F64)
    weight = counts[centre, context]

    def slope(function):
        u = scores.mT.clone().requires_grad_()
        (weight * function(torch.eye(5, dtype=F64)[centre], context, u)).sum().backward()
        return u.grad.flatten()

    truth, cosine = slope(loss.softmax), {}
    for number in (1, 10, 1000):
        torch.manual_seed(0)
        drawn = torch.multinomial(noise, len(centre) * number, replacement=True).view(-1, number)
        nce = slope(lambda h, c, u, drawn=drawn: loss.noise_contrastive(h, c, drawn, u, noise))
        cosine[number] = float(torch.cosine_similarity(truth, nce, dim=0))
    assert cosine[1] < cosine[1000]
    assert cosine[1000] > 0.99


def test_the_numerator_alone_falls_for_ever():
    counts = torch.tensor([[3.0, 1], [1, 2]], dtype=F64)
    centre, context = counts.nonzero(as_tuple=True)

    def descend(penalty, steps=400):
        v, u = (normal(2, 2, seed=s).requires_grad_() for s in (1, 2))
        optimiser = torch.optim.SGD([v, u], lr=0.1)
        for _ in range(steps):
            optimiser.zero_grad()
            value = (counts.flatten() * loss.numerator(v[centre], context, u, penalty)).sum()
            value.backward()
            optimiser.step()
        return value.item(), float(v.detach().abs().max())

    value, size = descend(0.0, 100)
    assert value < -1e6
    assert size > 1e3
    assert descend(0.5, 100)[0] < -1e6  # a little does not help
    value, size = descend(1.5)
    assert abs(value) < 1e-6  # and enough leaves nothing
    assert size < 1e-3
