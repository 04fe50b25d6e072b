"""Small Pyro programs that several tests ask about."""

import pyro
import pyro.distributions as dist


def normal(y):
    """Rows around an unknown loc; the posterior is known."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def normal_of_unknown_scale(y):
    """Rows around an unknown loc, of unknown scale."""
    loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, scale), obs=y)
