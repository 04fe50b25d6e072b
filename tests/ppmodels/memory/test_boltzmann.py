"""The Boltzmann machine's exact partition function, its moments, and its dynamics."""

import itertools

import pyro
import pytest
import torch

from inference.base import fresh, joint
from inference.density import Density
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.memory._ising import Ising, features
from ppmodels.memory.boltzmann import BoltzmannMachine


def machine(units, seed=0):
    g = torch.Generator().manual_seed(seed)
    coupling = 0.5 * torch.randn(units * (units - 1) // 2, generator=g, dtype=torch.float64)
    return coupling, 0.3 * torch.randn(units, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("units", [2, 7, 12])
def test_probabilities_of_all_states_are_boltzmanns(units):
    coupling, bias = machine(units)
    network = BoltzmannMachine(units).network(coupling, bias)
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=units)), dtype=torch.float64)
    log_z = (-network.energy(states)).logsumexp(0)
    ising = Ising(coupling, bias)
    assert torch.allclose(ising.log_partition(), log_z, atol=1e-12)
    assert torch.allclose(ising.log_prob(states), -network.energy(states) - log_z, atol=1e-12)
    assert ising.log_prob(states).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_moments_are_the_gradient_of_log_z():
    coupling, bias = (t.requires_grad_() for t in machine(6))
    ising = Ising(coupling, bias)
    slope = torch.autograd.grad(ising.log_partition(), [bias, coupling])
    assert torch.allclose(torch.cat(slope), ising.moments(), atol=1e-12)


def test_gibbs_sweeps_and_exact_draws_agree_with_the_exact_moments():
    coupling, bias = machine(8, seed=2)
    beta, truth = 0.7, Ising(0.7 * coupling, 0.7 * bias).moments()
    network = BoltzmannMachine(8).network(coupling, bias)
    generator = torch.Generator().manual_seed(0)
    start = 2.0 * torch.randint(2, (20000, 8), generator=generator).double() - 1
    for net, cue in ((network, start), (network.as_bits(), (start + 1) / 2)):
        end = net.sample(cue, beta, 60, generator)
        end = end if net.units == "signs" else 2 * end - 1
        assert (features(end).mean(0) - truth).abs().max() < 4 * 20000**-0.5
    pyro.set_rng_seed(1)
    exact = Ising(beta * coupling, beta * bias).sample((20000,))
    assert (features(exact).mean(0) - truth).abs().max() < 4 * 20000**-0.5


def test_infinite_temperature_is_a_fair_coin():
    generator = torch.Generator().manual_seed(0)
    network = BoltzmannMachine(4).network(*machine(4))
    end = network.sample(torch.ones(20000, 4, dtype=torch.float64), 0.0, 1, generator)
    assert features(end).mean(0).abs().max() < 4 * 20000**-0.5


def test_the_mode_finds_the_couplings_that_made_the_states():
    model = BoltzmannMachine(4, coupling_scale=2.0, bias_scale=2.0)
    coupling, bias = machine(4, seed=5)
    pyro.set_rng_seed(0)
    s = Ising(coupling, bias).sample((5000,))
    data = Data.of(model, s=s)
    with fresh(model, (data,)) as own:
        density = Density.of(joint(own, (data,), {}), (data,))
        batched = density.batched(1, compile=False)
        x = torch.zeros(1, density.dim, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([x], max_iter=100, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

        def closure():
            value, x.grad = (-part for part in batched(x.detach()))
            return value.sum()

        optimiser.step(closure)
        fitted = density.constrain(x.detach()[0])
    assert batched.executor == "graph"
    found = Ising(fitted["coupling"], fitted["bias"])
    assert torch.allclose(found.moments(), features(s).mean(0), atol=2e-4)  # moments match but for the prior
    assert (fitted["coupling"] - coupling).abs().max() < 0.1
    assert (fitted["bias"] - bias).abs().max() < 0.1


def test_simulated_states_are_signs():
    data, latents = simulate(BoltzmannMachine(5), 30)
    assert data.observed["s"].shape == (30, 5)
    assert (data.observed["s"].abs() == 1).all()
    assert latents["coupling"].shape == (10,)


def test_bad_fields_are_refused():
    with pytest.raises(ValueError, match="units must be 2 to 15"):
        BoltzmannMachine(16)
    with pytest.raises(ValueError, match="beta must be positive"):
        BoltzmannMachine(4, beta=0.0)
    with pytest.raises(ValueError, match="beta must not be negative"):
        BoltzmannMachine(2).network(*machine(2)).sample(torch.ones(2), -1.0, 1, torch.Generator())
