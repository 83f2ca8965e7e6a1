"""What tests of interrupted runs share."""

import pytest
from lightning import Callback


class EveryStep(Callback):
    """Keep a checkpoint of every step, as a run killed right after it would have left."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(f"{self.folder}/step_{trainer.global_step}.ckpt")


@pytest.fixture
def keep_every_step(tmp_path, monkeypatch):
    """Make EveryStep reachable for Hydra and return the overrides that add it."""
    monkeypatch.setattr("eventclip.training.callbacks.EveryStep", EveryStep, raising=False)
    kept = tmp_path / "kept"
    kept.mkdir()
    return kept, (
        "+callbacks.every._target_=eventclip.training.callbacks.EveryStep",
        f"+callbacks.every.folder={kept}",
    )
