"""Every claim of speed and memory as a ratio, measured here and now: ``python -m benchmarks``."""
