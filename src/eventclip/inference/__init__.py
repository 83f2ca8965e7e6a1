"""Recordings of one's own: what the model sees in them, and what it says. No Lightning."""
