"""``python -m eventclip.simulate images=DIR out=DIR``: film still images with a simulated event camera."""

from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="simulate")
@command
def main(cfg: DictConfig) -> None:
    """Build camera and settings from the composed configuration, film, and say what was made."""
    from dataclasses import fields

    from eventclip.data.film_settings import Filming
    from eventclip.data.filming import film_folder
    from eventclip.errors import UserError
    from eventclip.events.camera import EventCamera

    for key, meaning in (("images", "folder of class folders of images"), ("out", "folder for the recordings")):
        if OmegaConf.is_missing(cfg, key):
            raise UserError(f"{key}= is missing, the {meaning}: python -m eventclip.simulate images=DIR out=DIR")
    settings = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    camera = settings.pop("camera")
    where = {key: settings.pop(key) for key in ("images", "out")}
    how = {key: settings.pop(key) for key in ("leave_out", "workers", "progress")}
    for prefix, given, kind in (("", settings, Filming), ("camera.", camera, EventCamera)):
        unknown = set(given) - {field.name for field in fields(kind)}
        if unknown:
            raise UserError(f"{prefix}{min(unknown)} is no setting of the simulation: --cfg job prints all of them")
    filming = Filming(camera=EventCamera(**camera), **settings)
    made = film_folder(where["images"], where["out"], filming, **how)
    print(f"{where['out']}: {made.summary()}")


if __name__ == "__main__":
    main()
