"""Kernels by themselves, so that one that becomes slower is seen between two releases."""
