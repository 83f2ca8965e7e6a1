"""Recordings of a simulated camera."""
