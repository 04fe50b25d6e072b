import pytest
import torch

from ppmodels.nn.ssm_stack import SSMStack


def stack(**options):
    torch.manual_seed(0)
    return SSMStack(**{"inputs": 3, "outputs": 5, "width": 8, "layers": 2, "states": 8, **options}).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("system", ["s4", "s4d"])
def test_steps_are_the_forward_pass(system):
    network = stack(system=system)
    x = torch.randn(2, 33, 3, dtype=torch.float64)
    whole = network(x)
    head, state = network.prefill(x[:, :20], network.default_state(2))
    tail = []
    for now in x[:, 20:].unbind(1):
        y, state = network.step(now, state)
        tail.append(y)
    torch.testing.assert_close(torch.cat([head, torch.stack(tail, 1)], 1), whole, atol=1e-10, rtol=0)


@torch.no_grad()
def test_tokens_decode_as_a_whole():
    network = stack(inputs=7, outputs=7, tokens=True)
    tokens = torch.randint(7, (2, 20))
    first, state = network.decode(tokens[:, :19])
    last, _ = network.decode(tokens[:, 19:], state)
    torch.testing.assert_close(torch.cat([first, last], 1), network(tokens), atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pool", ["none", "mean", "last"])
def test_padding_is_a_shorter_batch(pool, bidirectional):
    network = stack(pool=pool, bidirectional=bidirectional)
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    lengths = torch.tensor([30, 11])
    padded = network(x, lengths)
    alone = network(x[1:, :11])
    ours = padded[1:, :11] if pool == "none" else padded[1:]
    torch.testing.assert_close(ours, alone, atol=1e-10, rtol=0)
    x[1, 11:] = 1e3
    again = network(x, lengths)
    torch.testing.assert_close(again[1:, :11] if pool == "none" else again[1:], ours, atol=0, rtol=0)


@torch.no_grad()
def test_length_one_and_longer_than_ever():
    network = stack(pool="mean")
    for length in (1, 1001):
        assert network(torch.randn(1, length, 3, dtype=torch.float64)).shape == (1, 5)


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="no pooling"):
        stack(pool="max")
    with pytest.raises(ValueError, match="lengths"):
        stack()(torch.zeros(1, 4, 3, dtype=torch.float64), torch.tensor([5]))
    network = stack(pool="mean")
    with pytest.raises(ValueError, match="mean pooling"):
        network.step(torch.zeros(1, 3, dtype=torch.float64), network.default_state())


@pytest.mark.slow
def test_remembers_what_a_recurrent_network_of_its_size_forgets():
    """Repeat the input of 50 steps ago: the error of chance is 1, a state space gets far below it."""
    delay, length = 50, 100

    class Recurrent(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.cell, self.head = torch.nn.RNN(1, width, batch_first=True), torch.nn.Linear(width, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0])

    def trained(network):
        torch.manual_seed(0)
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(500):
            x = torch.randn(16, length, 1)
            optimiser.zero_grad()
            loss = (network(x)[:, delay:] - x[:, :-delay]).square().mean()
            loss.backward()
            optimiser.step()
        return loss.item()

    torch.manual_seed(0)
    space = SSMStack(1, 1, width=16, layers=1, states=64, dt=(0.01, 0.1), init="legt")
    size = sum(p.numel() for p in space.parameters())
    width = next(w for w in range(1, 999) if sum(p.numel() for p in Recurrent(w).parameters()) >= size)
    assert trained(space) < 0.3
    assert trained(Recurrent(width)) > 0.9
