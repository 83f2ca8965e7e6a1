"""The table at the end of a multirun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from eventclip.errors import UserError


class SweepTable(Callback):
    """Print the report of a multirun's runs once all have ended, and say where everything lies."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder; ``kwargs`` is Hydra's and empty."""
        from eventclip.reporting.report import make_report

        folder = Path(config.hydra.sweep.dir)
        try:
            print(f"\n{make_report([folder]).markdown}\n{folder}: results, checkpoints and pictures of each run")
        except UserError as error:
            print(f"\nno table: {error}")
