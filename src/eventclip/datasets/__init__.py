"""Data sets of recordings: listing, sampling, samples, loaders."""
