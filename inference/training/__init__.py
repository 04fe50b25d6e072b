"""How something is learned step by step: one loop for variational inference and for any torch objective.

A loss is a function of the rows to use, a tensor of their numbers or None for all, that returns a scalar:

    from inference.training import HeldOut, Training, warmup_cosine

    training = Training(num_steps=5000, lr=1e-3, rows=len(x), batch_size=64, seed=0)
    training.run(lambda rows: network.loss(x[rows]).mean(), network)

`run` changes the parameters in place; they are a module's, or what a function returns by name (some may be
made on the way, as Pyro's are). What else a run may be told, each a field of `Training` and told there:

- `optimiser=torch.optim.AdamW`, `groups=parameter_groups(network)` as torch's optimisers take them, or a
  function of a parameter's name, as Pyro's do; `clip=1.0`; `ema=0.999`, used by `with training.averaged():`.
- `schedule=warmup_cosine(100, 5000)`: the share of `lr` at a step; or `plateau=Plateau(1e-5, 2)`, which lowers
  the rate where the objective stands still, and ends the run.
- `held_out=HeldOut(lambda: network.loss(x_test).mean(), patience=10)` ends it too, and keeps the best weights.
- `precision="bf16"` (or "fp16", with scaled losses) computes the loss under autocast; weights stay as they are.
- `checkpoint="run.safetensors"`: a killed run, called again, ends with the same weights, bit for bit.
- `progress_bar=True`; `training.curves()` are the objective at every step and the held-out one.
- `training.step` is the number of the step, for a loss that changes on the way, such as an annealed one.
- `compile="auto"` records the operations of the loss and its gradient once, and compiles them where so many steps
  earn that back: several times faster for small networks, where the loss depends on rows and parameters alone.

Several devices: start the same program once a device with `torchrun`, call `torch.distributed.init_process_group`
first, and everything else stays as it is. Every process takes its share of each batch, and gradients are added up:
the result is that of one process with the joint batch.
"""

from inference.training.checkpoint import Checkpoint
from inference.training.held_out import HeldOut
from inference.training.loop import Training
from inference.training.minibatches import minibatch
from inference.training.plateau import Plateau
from inference.training.schedules import constant, warmup_cosine, warmup_linear, warmup_root

__all__ = [
    "Checkpoint",
    "HeldOut",
    "Plateau",
    "Training",
    "constant",
    "minibatch",
    "warmup_cosine",
    "warmup_linear",
    "warmup_root",
]
