"""The configuration: where it lies, what it may hold, how mistakes in it are told."""
