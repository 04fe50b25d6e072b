# %% [markdown]
# # Wine: where one grower's wine ends and another's begins
#
# 130 wines of two growers, 13 chemical measurements. Naive Bayes models each grower's wines, one measurement at a
# time; logistic regression models only the border between them. Which learns from few wines? Where do the borders
# run, and how firmly are they drawn once the weights are integrated out?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from sklearn.datasets import load_wine

from inference import plots
from ppmodels.base import Data
from ppmodels.classification.classifier import Classifier
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.logistic_mode import newton
from ppmodels.classification.logistic_posterior import laplace
from ppmodels.classification.naive_bayes import NaiveBayes

PAIR = (0, 9)  # alcohol and colour
SIZES = (8, 12, 18, 27, 40, 60, 90)


def main(folder: str | Path = "runs/wine_borders", repeats: int = 40) -> dict[str, list[float]]:
    """Draw borders in two measurements, and errors on wines not seen, by the number of wines learned from."""
    source, path, console = load_wine(), Path(folder), Console(width=110)
    two = source.target < 2
    x, y = torch.tensor(source.data[two]), torch.tensor(source.target[two])
    path.mkdir(parents=True, exist_ok=True)

    plane = x[:, PAIR]
    names = ["alcohol (%)", "colour intensity"]
    figure = plots.regions(predictors(plane, y), plane, y, names=names, classes=["grower 0", "grower 1"])
    figure.savefig(path / "borders.png")

    wrong = curves((x - x.mean(0)) / x.std(0), y, repeats)
    for name, errors in wrong.items():
        console.print(f"{name:36} " + "  ".join(f"{n}: {e:.1%}" for n, e in zip(SIZES, errors, strict=True)))
    learning(wrong).savefig(path / "learning.png", dpi=150)
    console.print(f"Pictures are in {path}.")
    return wrong


def predictors(x: torch.Tensor, y: torch.Tensor) -> dict:
    """Each way's class probabilities in the plane of two measurements."""
    middle, spread = x.mean(0), x.std(0)
    bayes = Classifier(NaiveBayes.for_data(x)).learn(x, y)
    model = LogisticRegression(features=2, spread=3.0)
    data = Data(len(x), {"x": (x - middle) / spread}, {"y": y.double()})
    point, around = newton(model, data), laplace(model, data)

    def both(one: torch.Tensor) -> torch.Tensor:
        return torch.stack([1 - one, one], -1)

    def scaled(rows: torch.Tensor) -> Data:
        return Data(len(rows), {"x": (rows - middle) / spread})

    return {
        "naive Bayes, parameters integrated out": bayes.predict_proba,
        "logistic regression, best weights": lambda rows: both((model.design(scaled(rows)) @ point).sigmoid()),
        "logistic regression, weights integrated out": lambda rows: both(around.predict(scaled(rows))),
    }


def curves(x: torch.Tensor, y: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Share of wrong classes among wines not learned from, for each size of what was."""
    generator = torch.Generator().manual_seed(0)
    model = LogisticRegression(features=x.shape[1], spread=10.0)
    wrong: dict[str, list[float]] = {"naive Bayes": [], "logistic regression": []}
    for size in SIZES:
        errors = torch.zeros(2, repeats)
        for i in range(repeats):
            order = torch.randperm(len(x), generator=generator)
            learn, judge = order[:size], order[size:]
            while len(y[learn].unique()) < 2:
                order = torch.randperm(len(x), generator=generator)
                learn, judge = order[:size], order[size:]
            bayes = Classifier(NaiveBayes.for_data(x[learn])).learn(x[learn], y[learn])
            coef = newton(model, Data(size, {"x": x[learn]}, {"y": y[learn].double()}))
            said = bayes.predict(x[judge]), (model.design(Data(len(judge), {"x": x[judge]})) @ coef > 0).long()
            errors[:, i] = torch.stack([(each != y[judge]).double().mean() for each in said])
        for name, value in zip(wrong, errors.mean(1).tolist(), strict=True):
            wrong[name].append(value)
    return wrong


def learning(wrong: dict[str, list[float]]) -> plt.Figure:
    """Errors by the number of wines learned from."""
    figure, axis = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    for name, errors in wrong.items():
        axis.loglog(SIZES, errors, "o-", ms=4, label=name)
    axis.set(xlabel="wines learned from", ylabel="share of other wines called wrongly", xticks=SIZES)
    axis.set_xticks(SIZES, [str(n) for n in SIZES])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axis.set_yticks([0.01, 0.02, 0.05, 0.1])
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


# %%
if __name__ == "__main__":
    main()
