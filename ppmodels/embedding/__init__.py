"""Words as vectors, learned from which words stand near which."""
