"""The table at the end of a multirun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from eventclip.config.run_folders import differences
from eventclip.errors import UserError


class SweepTable(Callback):
    """Print the report of a multirun's runs once all have ended, and say where everything lies."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder, and say which run is where; ``kwargs`` is Hydra's and empty."""
        from eventclip.reports.report import make_report

        folder = Path(config.hydra.sweep.dir)
        runs = differences(sorted((place.parent for place in folder.glob("*/.hydra")), key=_number))
        listed = "".join(f"{run.name}: {typed}\n" for run, typed in runs.items() if typed)
        try:
            report = make_report([folder]).markdown
            print(f"\n{report}\n{listed}{folder}: results, checkpoints and pictures of each run")
        except UserError as error:
            print(f"\nno table: {error}")


def _number(run: Path) -> tuple[int, str]:
    """Runs in the order in which they were started."""
    number = run.name.partition("-")[0]
    return (int(number) if number.isdecimal() else 0, run.name)
