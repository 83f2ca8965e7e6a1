"""The feature cache: encode once, read often."""
