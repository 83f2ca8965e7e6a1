"""Lightning: the thin module, optimisation, callbacks, checkpoints."""
