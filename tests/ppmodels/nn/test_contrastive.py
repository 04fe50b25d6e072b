import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from ppmodels.nn.contrastive import CLIP, clip_loss


@pytest.mark.parametrize("rows", [2, 10, 64])
def test_equal_logits_cost_the_log_of_the_batch(rows):
    same = torch.ones(rows, 5)
    assert clip_loss(same, same, 3.0).item() == pytest.approx(math.log(rows), abs=1e-6)


def test_loss_is_the_formula_and_symmetric():
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    cosines = torch.stack([functional.cosine_similarity(x[None], b) for x in a])
    total = 0.0
    for i in range(6):
        total += cosines[i].mul(5).softmax(0)[i].log() + cosines[:, i].mul(5).softmax(0)[i].log()
    assert clip_loss(a, b, 5.0).item() == pytest.approx(-total.item() / 12, abs=1e-12)
    assert clip_loss(b, a, 5.0).item() == pytest.approx(clip_loss(a, b, 5.0).item(), abs=1e-12)
    assert clip_loss(7 * a, b, 5.0).item() == pytest.approx(clip_loss(a, b, 5.0).item(), abs=1e-12)


def test_pairs_find_each_other_and_captions_classify():
    """Points of eight groups, and the groups' names: told apart afterwards by the names alone."""
    torch.manual_seed(0)
    centres, groups = 2 * torch.randn(8, 12), 8
    network = CLIP(nn.Linear(12, 32), nn.Embedding(groups, 16), 32, 16, 8)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(200):
        names = torch.randperm(groups)
        optimiser.zero_grad()
        loss = network(centres[names] + 0.3 * torch.randn(groups, 12), names)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    truth = torch.randint(groups, (400,))
    guess = network.zero_shot(centres[truth] + 0.3 * torch.randn(400, 12), torch.arange(groups))
    torch.testing.assert_close(guess.sum(-1), torch.ones(400))
    assert (guess.argmax(-1) == truth).double().mean() > 0.98
    assert network.scale <= 100
