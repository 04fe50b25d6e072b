"""Associative memories: binary, dense and modern Hopfield networks, and the Boltzmann machine."""
