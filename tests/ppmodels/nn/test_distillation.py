import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from ppmodels.nn.distillation import SelfDistillation, average_into, distillation_loss


def test_distilled_student_agrees_with_its_teacher():
    torch.manual_seed(0)
    teacher, student, x = nn.Linear(5, 3), nn.Linear(5, 3), torch.randn(100, 5)
    optimiser = torch.optim.Adam(student.parameters(), 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        distillation_loss(student(x), teacher(x), 2.0).backward()
        optimiser.step()
    assert teacher.weight.grad is None
    divergence = functional.kl_div(student(x).log_softmax(-1), teacher(x).softmax(-1), reduction="batchmean")
    assert divergence < 1e-4


def test_teacher_is_a_running_mean():
    torch.manual_seed(0)
    mean, values = nn.Linear(2, 2), []
    start = mean.weight.detach().clone()
    for _ in range(4):
        source = nn.Linear(2, 2)
        values.append(source.weight.detach())
        average_into(mean, source, 0.8)
    expected = 0.8**4 * start + sum(0.2 * 0.8 ** (3 - i) * v for i, v in enumerate(values))
    torch.testing.assert_close(mean.weight.detach(), expected)


def train(centring, steps=400):
    torch.manual_seed(0)
    groups = 3 * torch.randn(6, 8)
    student = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 6))
    # A lean towards one answer, which collapse would follow.
    with torch.no_grad():
        student[2].bias[0] += 1.0
    network = SelfDistillation(student, 6, decay=0.95, centring=centring)
    before = copy.deepcopy(network.teacher.state_dict())
    optimiser = torch.optim.Adam(network.student.parameters(), 3e-3)
    for _ in range(steps):
        points = groups[torch.randint(6, (64,))]
        loss, mean = network([points + 0.3 * torch.randn(64, 8) for _ in range(2)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        network.update(mean)
    assert all(p.grad is None for p in network.teacher.parameters())
    assert not torch.equal(before["0.weight"], network.teacher.state_dict()["0.weight"])
    answers = network.probabilities(groups[torch.arange(6).repeat(50)] + 0.3 * torch.randn(300, 8))
    mean = answers.mean(0)
    each = -(answers * answers.clamp(min=1e-30).log()).sum(-1).mean().item()
    overall = -(mean * mean.clamp(min=1e-30).log()).sum().item()
    return each, overall


def test_centring_prevents_collapse():
    """Without it one answer takes all; with it many are used, and each point is sure of its own."""
    each, overall = train(0.9)
    assert overall > 0.7 * math.log(6)
    assert each < 0.5 * overall
    _, collapsed = train(None)
    assert collapsed < 0.1


def test_needs_two_views():
    with pytest.raises(ValueError, match="compares views"):
        SelfDistillation(nn.Linear(2, 2), 2)([torch.zeros(1, 2)])
