"""Parts of the benchmarks of densities and of Markov chain Monte Carlo."""
