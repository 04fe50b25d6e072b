"""What the benchmark of latents is made of."""
