"""The line under a run: how far, what a draw costs, how many diverge."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.mcmc.progress import Progress


def turn(diverging, steps):
    return {"diverging": torch.tensor(diverging), "n_steps": torch.tensor(steps)}


def test_it_counts_turns_gradients_and_divergences(capsys):
    with Progress("mcmc", 3, shown=True) as bar:
        bar.advance(turn([False, True], [3, 5]))
        bar.advance(turn([True, True], [1, 2]))
        bar.advance(turn([False, False], [4, 2]))
    said = " ".join(capsys.readouterr().out.split())
    assert "3/3" in said
    assert "3.7 gradients a draw, 3 divergences" in said  # a turn lasts as long as its longest chain


def test_it_begins_again_where_a_run_does(capsys):
    with Progress("mcmc", 2, shown=True) as bar:
        bar.advance(turn([True], [9]))
        bar.begin_again(2)
        bar.advance(turn([False], [4]))
    assert "4.0 gradients a draw, 0 divergences" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("shown", [False, True])
def test_a_run_shows_it_where_it_is_wanted(shown, capsys):
    def program():
        pyro.sample("x", dist.Normal(torch.zeros(()), 1.0))

    mcmc.fit(program, num_chains=4, num_warmup=10, num_samples=5, compile=False, progress_bar=shown)
    said = capsys.readouterr().out
    wanted = ("warm-up", "10/10", "draws", "5/5", "gradients a draw", "0 divergences")
    assert all(word in said for word in wanted) if shown else not said
