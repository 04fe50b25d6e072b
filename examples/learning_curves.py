# %% [markdown]
# # Learning curves: should one model how the rows come about, or only where the border runs?
#
# Naive Bayes says how measurements arise in each class, and is wrong: they are not independent. Logistic regression
# says only how the classes divide. Ng and Jordan (2002): the one needs few rows to reach its limit, the other has the
# better limit. 569 tumours with 30 measurements each; and 6366 marriages of statsmodels' `fair`, of which eight answers
# are to tell who had an affair. The second half of the claim is plain to see. Of the first, a tie is left at a few
# dozen rows; and a prior on the weights, which also says something before there are rows, turns it round.
# The models are scikit-learn estimators here, so its learning curves are theirs.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.api as sm
from rich.console import Console
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedShuffleSplit, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inference.sklearn import Estimator
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.naive_bayes import NaiveBayes

MODELS = {
    "naive Bayes": Estimator(NaiveBayes(columns=("gaussian",)), method="em", options={"prior": True}),
    "logistic regression, weights within 100": Estimator(LogisticRegression(spread=100.0), method="mode"),
    "logistic regression, weights within 1": Estimator(LogisticRegression(spread=1.0), method="mode"),
}
Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # rows learned from (S,), and errors (S, repeats)


def main(folder: str | Path = "runs/learning_curves", repeats: int = 8) -> dict[str, Curves]:
    """Learn from more and more rows, many times over; print where the curves cross, and draw them."""
    path, console = Path(folder), Console(width=110)
    path.mkdir(parents=True, exist_ok=True)
    table = sm.datasets.fair.load_pandas().data
    marriages = table.drop(columns="affairs").to_numpy(), (table["affairs"] > 0).to_numpy().astype(int)
    sets = {"tumours": load_breast_cancer(return_X_y=True), "marriages": marriages}
    sizes = {"tumours": [12, 20, 40, 80, 160, 350], "marriages": [20, 40, 100, 300, 1000]}
    found = {name: curves(*rows, sizes[name], repeats) for name, rows in sets.items()}
    for name, each in found.items():
        for model, (_, errors) in each.items():
            console.print(f"{name:10} {model:40} " + " ".join(f"{error:6.1%}" for error in errors.mean(1)))
    drawn(found).savefig(path / "learning_curves.png", dpi=150)
    console.print(f"The picture is {path / 'learning_curves.png'}.")
    return found


def curves(x: np.ndarray, y: np.ndarray, sizes: list[int], repeats: int) -> Curves:
    """Errors on 200 rows that were held out, after learning from so many."""
    splits = StratifiedShuffleSplit(repeats, test_size=200, random_state=0)
    found = {}
    for name, model in MODELS.items():
        pipe = make_pipeline(StandardScaler(), model)
        _, _, score = learning_curve(pipe, x, y, train_sizes=sizes, cv=splits, shuffle=True, random_state=0)
        found[name] = np.array(sizes), 1 - score
    return found


def drawn(found: dict[str, Curves]) -> plt.Figure:
    """A panel a data set: mean error, and its standard error over repeats."""
    figure, axes = plt.subplots(1, len(found), figsize=(9.4, 3.6), layout="constrained")
    for axis, (name, each) in zip(axes, found.items(), strict=True):
        for (model, (size, errors)), mark in zip(each.items(), ("o-", "s--", "s-"), strict=True):
            spread = errors.std(1, ddof=1) / errors.shape[1] ** 0.5
            axis.errorbar(size, errors.mean(1), spread, fmt=mark, ms=4, capsize=2, label=model)
        axis.set(xscale="log", xlabel="rows learned from", title=name)
        axis.set_xticks(size, [str(n) for n in size])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("held-out rows that are told wrong")
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    return figure


# %%
if __name__ == "__main__":
    main()
