# %% [markdown]
# # Breast cancer: who is right, and who knows how often
#
# 569 tumours, 30 measurements of each, and whether it was malignant. The measurements depend on one another, which
# naive Bayes denies: it counts the same evidence again and again, and is far too sure. One number, a temperature
# learned on held-out rows, repairs that. Logistic regression with its weights integrated out needs no repair.

# %%
from pathlib import Path

import torch
from rich.console import Console
from sklearn.datasets import load_breast_cancer

from inference import plots
from inference.scoring import Reliability, confusion, log_score, reliability, temperature
from ppmodels.base import Data
from ppmodels.classification.classifier import Classifier
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.logistic_posterior import laplace
from ppmodels.classification.naive_bayes import NaiveBayes


def main(folder: str | Path = "runs/breast_cancer", seed: int = 0) -> dict[str, Reliability]:
    """Learn from half of the rows, repair on a quarter, judge on the last; print scores and draw the reliability."""
    source, console = load_breast_cancer(), Console(width=110)
    x, y = torch.tensor(source.data), torch.tensor(source.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    learn, repair, judge = order[:285], order[285:427], order[427:]
    x = (x - x[learn].mean(0)) / x[learn].std(0)

    bayes = Classifier(NaiveBayes(columns=("gaussian",) * 30)).learn(x[learn], y[learn])
    heat = temperature(bayes.log_joint(x[repair]), y[repair])
    model = LogisticRegression(features=30, spread=1.0)
    weights = laplace(model, Data(285, {"x": x[learn]}, {"y": y[learn].double()}))
    one = weights.predict(Data(len(judge), {"x": x[judge]}))
    said = {
        "naive Bayes": bayes.predict_proba(x[judge]),
        f"the same at temperature {heat:.1f}": (bayes.log_joint(x[judge]) / heat).softmax(-1),
        "logistic regression": torch.stack([1 - one, one], -1),
    }

    for name, probability in said.items():
        table = confusion(y[judge], probability.argmax(-1))
        console.print(
            f"{name:34} accuracy {table.accuracy:.3f}, recall of malignant {float(table.recall[0]):.3f}, "
            f"log score {log_score(probability, y[judge]):.3f}"
        )
    found = {name: reliability(probability, y[judge], bins=8) for name, probability in said.items()}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    plots.reliability(found).savefig(path / "reliability.png")
    console.print(f"The picture is {path / 'reliability.png'}.")
    return found


# %%
if __name__ == "__main__":
    main()
