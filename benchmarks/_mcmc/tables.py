"""The tables of the comparison."""

from collections.abc import Mapping
from math import exp, log
from typing import Any

from rich import box
from rich.table import Table

from benchmarks._mcmc.samplers import OURS, OURS_4
from benchmarks._mcmc.scores import errors

Row = Mapping[str, Any]

SAME = 1e-6  # relative difference of log densities above which a peer samples something else

NOTES = """
ESS and R-hat: rank-normalised, worst scalar; all seconds count warm-up. Every sampler has its own process.
first: seconds that the first fit takes beyond the same fit again: tracing, building, compiling, with empty caches.
warm: the second fit in one process. cold: the first. CPU: processor seconds with all children; ratios are of these.
Pyro NUTS: one short chain, 200 warm-up steps and 200 draws; its rate is taken to hold for longer runs.
off: worst distance of a mean from the reference in its sds; sd: worst ratio of sds. ~ marks a reference that is
itself a run, the one with the largest ESS among those of other systems. pystan's chains run on all cores at once.
"""


def posterior(name: str, found: Mapping[str, Row]) -> Table:
    """Return every sampler's figures on one posterior."""
    table = Table(title=name, box=box.SIMPLE, title_justify="left")
    table.add_column("sampler")
    for head in ("chains x draws", "bulk ESS", "tail ESS", "R-hat", "diverging", "first s\nCPU (wall)"):
        table.add_column(head, justify="right")
    for head in ("warm s\nCPU (wall)", "ESS/s warm\nCPU (wall)", "ESS/s cold\nCPU (wall)", "off", "sd"):
        table.add_column(head, justify="right")
    truth, mark = _truth(found)
    for sampler, row in found.items():
        table.add_row(sampler, *(_cells(row, truth, mark) if _valid(row) else ["none"]))
    reasons = [f"{sampler}: {_why_not(row)}" for sampler, row in found.items() if not _valid(row)]
    table.caption = "\n".join(reasons) or None
    return table


def agreement(name: str, found: Mapping[str, Row]) -> Table:
    """Return how far each peer's log density is from the Pyro program's."""
    table = Table("sampler", "relative difference", title=name, box=box.SIMPLE, title_justify="left")
    for sampler, row in found.items():
        table.add_row(sampler, row.get("why_not") or f"{row['disagreement']:.1e}")
    return table


def ratios(rows: Mapping[str, Mapping[str, Row]]) -> Table:
    """Return by how much ours is ahead, in effective draws a processor second."""
    table = Table(title="ours / peers, ESS per CPU second", box=box.SIMPLE, title_justify="left")
    heads = ("", "warm / best peer", "cold / best peer", "4 chains / best NumPyro of 4", "4 chains / Stan")
    for head in (*heads, "warm / Pyro", "best peer, warm"):
        table.add_column(head, justify="right")
    columns: list[list[float]] = []
    for name, found in rows.items():
        figures, best = _ratios(found)
        columns.append(figures)
        table.add_row(name, *(f"{x:.2f}" if x == x else "-" for x in figures), best)
    for label, chosen in (("geometric mean, all", list(rows)), ("of the real ones", _real(rows))):
        means = [
            _geometric_mean([r[i] for r, name in zip(columns, rows, strict=True) if name in chosen]) for i in range(5)
        ]
        table.add_row(label, *(f"{x:.2f}" if x == x else "-" for x in means), "")
    return table


def _ratios(found: Mapping[str, Row]) -> tuple[list[float], str]:
    def rate(when: str, *parts: str) -> float:
        """The best rate of the samplers whose names hold one of these."""
        rows = [row for name, row in found.items() if any(part in name for part in parts) and _valid(row)]
        return max((row["bulk"] / row[when]["cpu"] for row in rows), default=float("nan"))

    def own(name: str, when: str) -> float:
        row = found.get(name, {})
        return row["bulk"] / row[when]["cpu"] if _valid(row) else float("nan")

    peers = ("NumPyro", "PyMC", "Stan")
    figures = [
        own(OURS, "warm") / rate("warm", *peers),
        own(OURS, "cold") / rate("cold", *peers),
        own(OURS_4, "warm") / rate("warm", "NumPyro, 4"),
        own(OURS_4, "warm") / rate("warm", "Stan"),
        own(OURS, "warm") / rate("warm", "Pyro NUTS"),
    ]
    valid = {n: r for n, r in found.items() if any(p in n for p in peers) and _valid(r)}
    return figures, max(valid, key=lambda n: valid[n]["bulk"] / valid[n]["warm"]["cpu"], default="-")


def _cells(row: Row, truth: Row | None, mark: str) -> list[str]:
    cold, warm, bulk = row["cold"], row["warm"], row["bulk"]
    off, sd = errors(row, truth) if truth is not None else (float("nan"),) * 2
    both = {when: {clock: bulk / row[when][clock] for clock in ("cpu", "wall")} for when in ("warm", "cold")}
    return [
        f"{row['chains']} x {row['draws']}",
        f"{bulk:,.0f}",
        f"{row['tail']:,.0f}",
        f"{row['rhat']:.4f}",
        str(row["divergences"]),
        f"{max(0, cold['cpu'] - warm['cpu']):.1f} ({max(0, cold['wall'] - warm['wall']):.1f})",
        f"{warm['cpu']:.2f} ({warm['wall']:.2f})",
        *(f"{both[when]['cpu']:,.0f} ({both[when]['wall']:,.0f})" for when in ("warm", "cold")),
        f"{mark}{off:.3f}",
        f"{mark}{sd:.3f}",
    ]


def _truth(found: Mapping[str, Row]) -> tuple[Row | None, str]:
    """The reference that comes with the posterior, or else the best run of another system."""
    for row in found.values():
        if "truth" in row:
            return row["truth"], ""
    others = [row for name, row in found.items() if name not in (OURS, OURS_4) and _valid(row)]
    return max(others, key=lambda row: row["bulk"], default=None), "~"


def _valid(row: Row) -> bool:
    return "bulk" in row and row["disagreement"] < SAME


def _why_not(row: Row) -> str:
    return row.get("why_not") or f"another density: differs by {row['disagreement']:.0e}"


def _real(rows: Mapping[str, Any]) -> list[str]:
    from benchmarks._mcmc.problems import REAL

    return [name for name in rows if name in REAL]


def _geometric_mean(values: list[float]) -> float:
    finite = [log(value) for value in values if value == value]
    return exp(sum(finite) / len(finite)) if finite else float("nan")
