"""How far a point may be off: the information in the curvature at it, standard errors, Wald and profile intervals."""

import math

import torch
from torch import Tensor

from inference.base import Draws, Fit, Unsupported
from inference.information.peak import Kind, Peak

__all__ = ["Number", "covariance", "curve", "ellipse", "profile", "region", "standard_errors", "wald"]


def standard_errors(fit: Fit, kind: Kind = "observed") -> Draws:
    r"""Return the standard error of every latent and computed site of a point, by site, (*site).

    .. math:: J H^{-1} J^\top, \quad \text{or} \quad J H^{-1} \Big(\sum_n w_n s_n s_n^\top\Big) H^{-1} J^\top

    H: minus the second derivative, in unconstrained coordinates, of what the fit has maximised, the likelihood or the
    posterior; s_n: each row's score; J: the derivative of the sites' own values (the delta method).
    kind: "observed" trusts the model; "sandwich" is right also where it is wrong.
    Raises: Unsupported, with the site and the reason, where the theory of regular peaks fails.
    Source: Efron and Hinkley (1978), Biometrika 65; White (1982), Econometrica 50; Huber (1967).
    """
    with Peak.of(fit) as peak:
        slopes = peak.slopes()
        total = peak.covariance(kind)
        return {n: ((j @ total) * j).sum(-1).clamp(min=0).sqrt().reshape(s) for n, (j, s) in slopes.items()}


def wald(fit: Fit, level: float = 0.95, kind: Kind = "observed") -> Draws:
    """Return the point plus and minus normal quantiles of its standard errors, by site, (*site, 2)."""
    quantile = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    values = {name: value[0, 0] for name, value in fit.draws.items()}
    reach = {name: quantile * error for name, error in standard_errors(fit, kind).items() if name in values}
    return {name: torch.stack([values[name] - r, values[name] + r], -1) for name, r in reach.items()}


def covariance(fit: Fit, kind: Kind = "observed") -> Tensor:
    """Return the covariance of the point in unconstrained coordinates, (dim, dim), as `standard_errors` has it."""
    with Peak.of(fit) as peak:
        return peak.covariance(kind)


def profile(fit: Fit, site: str, index: tuple[int, ...] = (), level: float = 0.95) -> tuple[float, float]:
    """Return where the objective, maximised over all else, has fallen too far to believe one number of a site.

    Twice the fall is the quantile of a chi-squared law with one degree of freedom; scales of the site do not matter.
    Raises: Unsupported where that number alone does not move one unconstrained coordinate, as in a simplex.
    """
    with Peak.of(fit) as peak:
        place = peak.place(site, index)
        fall = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))) ** 2 / 2
        sd = float(peak.covariance("observed")[place, place].sqrt())
        ends = [peak.end(place, side * sd, fall) for side in (-1, 1)]
        values = [float(peak.density.constrain(x[None])[site][(0, *index)]) for x in ends]
        return min(values), max(values)


def curve(
    fit: Fit, site: str, index: tuple[int, ...] = (), num_points: int = 41, reach: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Return values of one number of a site to `reach` sds on both sides, and how far the profile has fallen, (T,)."""
    with Peak.of(fit) as peak:
        place, top = peak.place(site, index), float(peak.density.log_prob(peak.x).detach())
        sd = float(peak.covariance("observed")[place, place].sqrt())
        value, x = peak.held([place], torch.linspace(-reach, reach, num_points).to(peak.x)[:, None] * sd)
        return peak.density.constrain(x)[site][(slice(None), *index)], (top - value).clamp(min=0)


Number = tuple[str, tuple[int, ...]]


def region(
    fit: Fit, first: str | Number, second: str | Number, num_points: int = 41, reach: float = 3.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values (T, T) of two numbers of a point around it, and how far the joint profile has fallen there, (T, T).

    first, second: a site, or its name and which of its numbers. The rows of the tables are steps of the first. Where
    twice the fall is below the quantile of a chi-squared law with two degrees of freedom, both are to be believed: the
    fall is `-log1p(-level)`, 2.996 for 95%.
    Raises: Unsupported where a number does not move one unconstrained coordinate, or both move the same.
    Source: Venzon and Moolgavkar (1988), Applied Statistics 37.
    """
    names = [_named(first), _named(second)]
    with Peak.of(fit) as peak:
        places = [peak.place(*name) for name in names]
        if places[0] == places[1]:
            raise Unsupported(f"{names[0][0]} and {names[1][0]} are functions of one another; their region is a line")
        total = peak.covariance("observed")[places][:, places]
        steps = torch.linspace(-reach, reach, num_points).to(peak.x)
        grid = torch.cartesian_prod(steps, steps) * total.diagonal().sqrt()  # (T * T, 2)
        value, x = peak.held(places, grid)
        found = peak.density.constrain(x)
        values = [found[site][(slice(None), *index)].reshape(num_points, num_points) for site, index in names]
        fall = (peak.density.log_prob(peak.x).detach() - value).clamp(min=0).reshape(num_points, num_points)
        return values[0], values[1], fall


def ellipse(
    fit: Fit, first: str | Number, second: str | Number, level: float = 0.95, num_points: int = 100
) -> tuple[Tensor, Tensor]:
    """Return the border, (T,) each, of Wald's region of two numbers of a point, that of a normal law."""
    with Peak.of(fit) as peak:
        slopes = peak.slopes()
        rows = [slopes[s][0].reshape(*slopes[s][1], -1)[index] for s, index in (_named(first), _named(second))]
        slope = torch.stack(rows)  # (2, dim)
        root = torch.linalg.cholesky(slope @ peak.covariance("observed") @ slope.mT)
        angle = torch.linspace(0, 2 * math.pi, num_points).to(root)
        circle = torch.stack([angle.cos(), angle.sin()]) * math.sqrt(-2 * math.log1p(-level))
        middle = [float(fit.draws[site][(0, 0, *index)]) for site, index in (_named(first), _named(second))]
        x, y = root @ circle
        return middle[0] + x, middle[1] + y


def _named(number: str | Number) -> Number:
    """A site's name and which of its numbers."""
    return (number, ()) if isinstance(number, str) else number
