"""``python -m eventclip.show recording=FILE out=x.png``: the frames of a recording exactly as CLIP gets them."""

from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="show")
@command
def main(cfg: DictConfig) -> None:
    """Look at a recording, classify it if a model was asked for, and write the picture."""
    from pathlib import Path

    from eventclip.errors import UserError
    from eventclip.files import printable
    from eventclip.inference.notes import Notes
    from eventclip.inference.pictures import check_picture, save_views
    from eventclip.inference.settings import build_looking, build_model

    if OmegaConf.is_missing(cfg, "recording"):
        raise UserError("recording= is missing: the file to show")
    settings = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    recording, out = str(settings["recording"]), Path(str(settings["out"])).expanduser()
    sensor_hw, top, gif_ms = settings["sensor_hw"], settings["top"], settings["gif_ms"]
    check_picture(out, top=top, gif_ms=gif_ms)
    found = None
    if settings["checkpoint"] is None and settings["classes"] is None:
        views = build_looking(settings).views(recording, sensor_hw)
    else:
        found = build_model(settings).classify(recording, sensor_hw=sensor_hw)
        views = found.views
    notes = Notes()
    notes.add(recording, *views.notes)
    notes.say()
    save_views(out, views, found, top=top, gif_ms=gif_ms)
    said = "" if found is None else f": {found.label} {found.probability:.0%}"
    print(printable(f"{out}: {len(views)} view{'s' * (len(views) > 1)} of {recording}{said}"))


if __name__ == "__main__":
    main()
