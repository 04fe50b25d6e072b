"""Models of neural populations: spike counts in bins, filters in seconds, latent states."""
