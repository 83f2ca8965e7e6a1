"""A callback for tests on the cluster: training slow enough to be interrupted, ranks out of step on demand."""

import os
import time

from lightning import Callback


class Pace(Callback):
    """Sleep in each batch.

    Args:
        seconds: on every rank.
        skew: on rank 0 in addition, after its part of the batch, while rank 1 has gone on.
    """

    def __init__(self, seconds, skew=0.0):
        self.seconds, self.skew = seconds, skew

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(self.seconds)

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        time.sleep(self.skew * (os.environ.get("SLURM_PROCID") == "0"))
