"""From a walk on a lattice to diffusion models: noise the data step by step, and learn the way back."""
