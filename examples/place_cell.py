# %% [markdown]
# # A place cell: does where the rat is say all about when the cell fires?
#
# A hippocampal cell fires in one part of a track. A Poisson model of position and its square puts the field at
# 63 cm; time rescaling rejects it. With the direction of running it passes: the cell has a place and a heading.
#
# The recording is that of Kramer and Eden (2016), Case Studies in Neural Data Analysis (MIT licence); it is not part
# of this project. Give the folder that holds their `spikes-1.mat`.

# %%
import math
import sys
from pathlib import Path

import numpy as np
import scipy.io
from rich.console import Console

from inference import laplace
from inference.plots.population import time_rescaling as ks_plot
from ppmodels.population.binning import bin_spikes
from ppmodels.population.cross_validation import expected
from ppmodels.population.glm import CoupledGLM
from ppmodels.population.scores import score
from ppmodels.population.time_rescaling import time_rescaling

NONE = (0, 0.0)
COLUMNS = {"place": ("x", "x^2"), "place and direction": ("x", "x^2", "direction")}


def main(recording: str | Path, folder: str | Path = "runs/place_cell") -> dict[str, float]:
    """Fit both models, print their scores, and draw the KS plot; return the KS distance of each."""
    file, console = scipy.io.loadmat(recording), Console()
    time, x = file["t"].ravel(), file["X"].ravel() / 100  # seconds, metres
    counts = bin_spikes({"place cell": file["spiketimes"].ravel()}, 0.001, [(time[0] - 0.0005, time[-1] + 0.0005)])
    series = {"x": x, "x^2": x**2, "direction": np.append(np.diff(x) > 0, False)}
    found, uniforms = {}, {}
    for name, columns in COLUMNS.items():
        model = CoupledGLM(1, len(columns), 0.001, NONE, NONE, NONE, scale=100.0, spread=100.0)
        data = model.data(counts, np.stack([series[column] for column in columns], 1).astype(float))
        fit = laplace.fit(model, data, seed=1)
        mean, seen = expected(model, fit.draws, data), data.given["seen"]
        bits = score(data.observed["counts"], mean, seen=seen).total_bits_per_spike
        rescaled = time_rescaling(data.observed["counts"], mean, seen)
        found[name], uniforms[name] = rescaled.statistic, rescaled.uniforms
        weights = fit.draws["stimulus_weight"][0, :, 0, :, 0]  # (S, columns), log gain per metre, per metre squared
        console.print(f"{name}: {bits:.2f} bits a spike, KS {rescaled.statistic:.3f} (95% band {rescaled.band:.3f})")
        centre = -weights[:, 0] / (2 * weights[:, 1])
        console.print(f"  the field is centred at {100 * centre.mean():.1f} cm, +- {100 * centre.std():.1f} cm")
        if "direction" in columns:
            low, high = weights[:, 2].quantile(0.025), weights[:, 2].quantile(0.975)
            console.print(f"  running up multiplies the rate by {math.exp(low):.0f} to {math.exp(high):.0f} (95%)")
    Path(folder).mkdir(parents=True, exist_ok=True)
    ks_plot(uniforms).savefig(Path(folder) / "time_rescaling.png")
    console.print(f"The picture is in {folder}.")
    return found


# %%
if __name__ == "__main__":
    main(*sys.argv[1:])
