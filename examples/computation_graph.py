# %% [markdown]
# # What does backpropagation walk over?
#
# A function is a graph of small steps. Each edge carries one derivative; the derivative of the whole is a sum over
# paths, and backpropagation adds it up with one visit an edge. The picture shows the graph of an exercise with every
# value, every edge's derivative, and the path that carries most of the gradient. Written out as formulas the
# derivatives of a repeated map swell, while the graph grows by the same few steps.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console

from ppmodels.backprop.graph import Graph
from ppmodels.backprop.operations import exp, log
from ppmodels.backprop.semiring import top_path
from ppmodels.backprop.symbolic import Symbol, differentiate, graph_size, tree_size
from ppmodels.backprop.tape import Node, Tape, gradient

WIDE = 1.35  # between two columns
SIGNS = {"add": "+", "subtract": "−", "multiply": "×", "divide": "÷", "power": "^", "negate": "−"}


def draw_graph(axes: Axes, output: Node, names: dict[Node, str]) -> list[float]:
    """Draw the graph of a node with the heaviest path from its first input; return the gradient by the names."""
    graph, inputs = Graph.of(output), list(names)
    place, slope = layered(graph), gradient(output, inputs)
    _, heaviest = top_path(graph, inputs[0], output)
    seen: dict[tuple[Node, Node], int] = {}
    for edge in graph.edges:
        (x0, y0), (x1, y1) = place[edge.source], place[edge.target]
        seen[edge.source, edge.target] = twice = seen.get((edge.source, edge.target), 0) + 1
        around = 0.2 if y1 > y0 else -0.18  # what stands between
        bend = 0.35 * (twice - 1) + around * (x1 - x0 > 1.5 * WIDE)
        color, width = ("C3", 2.2) if edge in heaviest else ("0.6", 1.0)
        arrow = {"arrowstyle": "-|>", "shrinkA": 13, "shrinkB": 13, "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={**arrow, "color": color, "lw": width})
        at = (x0 + x1) / 2 + bend / 2 * (y1 - y0), (y0 + y1) / 2 - bend / 2 * (x1 - x0)  # the middle of the arc
        box = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}
        axes.text(*at, f"{edge.weight:.3g}", color=color, fontsize=8, ha="center", va="center", bbox=box)
    for node, (x, y) in place.items():
        operation = node.operation.name if node.operation else names[node]
        face = "C0" if node.operation is None else "C1" if node is output else "white"
        axes.text(x, y, SIGNS.get(operation, operation), ha="center", va="center", fontsize=10,
                  bbox={"boxstyle": "circle,pad=0.35", "fc": face, "ec": "0.3", "alpha": 0.9})  # fmt: skip
        axes.annotate(
            f"{node.value:.4g}", (x, y), (0, -15), textcoords="offset points", ha="center", va="top", fontsize=8
        )
    across, down = zip(*place.values(), strict=True)
    axes.set(xlim=(-0.6, max(across) + 0.6), ylim=(min(down) - 0.8, max(down) + 0.6))
    axes.axis("off")
    return slope


def layered(graph: Graph) -> dict[Node, tuple[float, float]]:
    """Each vertex as far right as its longest way from an input; within a column beside what it comes from."""
    depth: dict[Node, int] = {}
    for vertex in graph.order:
        before = [edge.source for edge in graph.edges if edge.target is vertex]
        depth[vertex] = 1 + max((depth[v] for v in before), default=-1)
    place: dict[Node, tuple[float, float]] = {}
    for column in range(max(depth.values()) + 1):
        members = [v for v in graph.order if depth[v] == column]
        sources = {v: [place[e.source][1] for e in graph.edges if e.target is v] for v in members}
        members.sort(key=lambda v: -sum(sources[v]) / len(sources[v]) if sources[v] else v.index)
        for row, vertex in enumerate(members):
            place[vertex] = (WIDE * column, 1.25 * ((len(members) - 1) / 2 - row))
    return place


def draw_swell(axes: Axes, steps: int = 9) -> None:
    """Operations in the derivative of x -> 4 x (1 - x), applied again and again."""
    x = Symbol("x")
    formula, sizes = x, []
    for _ in range(steps):
        formula = 4 * formula * (1 - formula)
        slope = differentiate(formula, x)
        sizes.append((tree_size(slope), graph_size(slope)))
    for size, label in zip(zip(*sizes, strict=True), ("written out", "each part once"), strict=True):
        axes.semilogy(range(1, steps + 1), size, "o-", ms=4, label=label)
    axes.set(xlabel="times that the map is applied", ylabel="operations in the derivative")
    axes.legend()


def main(folder: str | Path = "runs/computation_graph") -> dict[str, float]:
    """Draw both pictures into the folder; return the exercise's gradient."""
    folder, console = Path(folder), Console()
    folder.mkdir(parents=True, exist_ok=True)
    x, y, z, v = inputs = Tape().variables(1.5, 2.0, 3.0, 4.0)
    output = exp(y ** (-x) - log(z)) + (y - z) ** 2 * log(v)
    names = dict(zip(inputs, "xyzv", strict=True))
    figure, axes = plt.subplots(figsize=(11, 5.5), layout="constrained")
    slope = draw_graph(axes, output, names)
    axes.set_title("exp(y$^{-x}$ − log z) + (y − z)$^2$ log v; derivatives on edges, red the heaviest path from x")
    figure.savefig(folder / "graph.png", dpi=140)
    plt.close(figure)
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    draw_swell(axes)
    figure.savefig(folder / "swell.png", dpi=130)
    plt.close(figure)
    found = dict(zip("xyzv", slope, strict=True))
    console.print("Gradient: ", {name: round(value, 7) for name, value in found.items()})
    console.print(f"Pictures are in {folder}.")
    return found


# %%
if __name__ == "__main__":
    main()
