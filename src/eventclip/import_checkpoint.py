"""``python -m eventclip.import_checkpoint reference.pth ...``: take over the published implementation's checkpoints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def take_path_alone() -> None:
    """Take a first argument that is a file's path alone for the checkpoint to read."""
    from pathlib import Path

    from eventclip.config.command_line import quote

    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first.endswith(".pth") and ("=" not in first or Path(first).is_file()):
        sys.argv[1] = f"reference={quote(first)}"


def look(cfg: DictConfig) -> None:
    """Look for the checkpoint, the data set and CLIP's files."""
    from pathlib import Path

    from eventclip.config.places import check_clip, check_data, check_given
    from eventclip.errors import UserError

    check_given(cfg, "reference", ": give the .pth file to read")
    check_given(cfg, "out", ": give the .ckpt file to write")
    if not Path(cfg.reference).expanduser().is_file():
        raise UserError(
            f"{cfg.reference} cannot be read (no such file): expected a .pth of the published implementation"
        )
    check_data(cfg)
    check_clip(cfg)


@entry("import_checkpoint", begin=take_path_alone, before=look)
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.training.evaluate.import_reference`."""
    from eventclip.training.evaluate import import_reference

    import_reference(cfg)


if __name__ == "__main__":
    main()
