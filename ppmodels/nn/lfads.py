"""A recurrent generator of firing rates, and the networks that read its start and its inputs off the spikes."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Generator(nn.Module):
    """A state (..., G) that runs on by itself and by inputs, linear factors of it, and log rates of N neurons.

    kind: "gru", or "linear", a state that is multiplied by a matrix. controls: columns of the inputs, or none.
    log_rate: where the log rates begin.
    """

    def __init__(self, state: int, controls: int, factors: int, neurons: int, kind: str, log_rate: float) -> None:
        super().__init__()
        self.kind, self.state, self.controls = kind, state, controls
        if kind == "gru":
            self.cell = nn.GRU(max(1, controls), state, batch_first=True)
        else:
            self.dynamics = nn.Parameter(0.95 * torch.eye(state) + 0.05 * torch.randn(state, state) / state**0.5)
            self.drive = nn.Linear(max(1, controls), state, bias=False)
        self.factor = nn.Linear(state, factors, bias=False)
        self.readout = nn.Linear(factors, neurons)
        nn.init.constant_(self.readout.bias, log_rate)
        if controls:
            self.log_scale = nn.Parameter(torch.full((controls,), -2.3))  # of the inputs' prior
            self.persistence = nn.Parameter(torch.full((controls,), 2.0))  # logit of their correlation a bin

    def states(self, start: Tensor, inputs: Tensor | None, bins: int) -> Tensor:
        """Return the states (..., T, G) from the start (..., G), which is the one before the first bin."""
        inputs = start.new_zeros(*start.shape[:-1], bins, 1) if inputs is None else inputs
        if self.kind == "gru":
            flat = inputs.reshape(-1, *inputs.shape[-2:])
            found, _ = self.cell(flat, start.reshape(1, -1, self.state).contiguous())
            return found.reshape(*start.shape[:-1], bins, self.state)
        now, path = start, []
        for t in range(bins):
            now = self.step(now, inputs[..., t, :])
            path.append(now)
        return torch.stack(path, -2)

    def step(self, now: Tensor, inputs: Tensor) -> Tensor:
        """Return the next state, (..., G)."""
        if self.kind == "linear":
            return now @ self.dynamics.mT + self.drive(inputs) * bool(self.controls)
        flat, _ = self.cell(inputs.reshape(-1, 1, inputs.shape[-1]), now.reshape(1, -1, self.state).contiguous())
        return flat.reshape(now.shape)

    def log_rates(self, states: Tensor) -> Tensor:
        """Return log rates (..., N) of states (..., G)."""
        return self.readout(self.factor(states))


class Encoder(nn.Module):
    """Both ways along the bins of spikes (..., T, N): what they say of the start, and of every bin's input."""

    def __init__(self, neurons: int, hidden: int, state: int, controls: int, factors: int) -> None:
        super().__init__()
        self.forth_and_back = nn.GRU(neurons, hidden, batch_first=True, bidirectional=True)
        self.start = nn.Linear(2 * hidden, 2 * state)
        nn.init.zeros_(self.start.bias)
        if controls:
            self.controller = nn.GRUCell(2 * hidden + factors, hidden)
            self.inputs = nn.Linear(hidden, 2 * controls)

    def forward(self, spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and sd of the start, (R, G) each, and what each bin is told, (R, T, 2 H)."""
        told, last = self.forth_and_back(torch.log1p(spikes))  # (R, T, 2 H), (2, R, H)
        mean, scale = self.start(last.transpose(0, 1).flatten(1)).chunk(2, -1)
        return mean, functional.softplus(scale - 1.0) + 1e-4, told

    def control(self, told: Tensor, factors: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and sd of a bin's input, (..., U), and the controller's state (rows, H)."""
        both = torch.cat([told.expand(*factors.shape[:-1], -1), factors], -1)
        now: Tensor = self.controller(both.reshape(-1, both.shape[-1]), hidden)
        mean, scale = self.inputs(now).reshape(*both.shape[:-1], -1).chunk(2, -1)
        return mean, functional.softplus(scale - 2.0) + 1e-4, now
