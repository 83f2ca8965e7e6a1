"""``python -m eventclip.simulate images=DIR out=DIR``: film still images with a simulated event camera."""

import hydra
from omegaconf import DictConfig, OmegaConf

from eventclip.config import CONFIG_DIR, command


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="simulate")
@command
def main(cfg: DictConfig) -> None:
    """Build camera and settings from the composed configuration, film, and say what was made."""
    from eventclip.data.film_settings import Filming
    from eventclip.data.filming import film_folder
    from eventclip.errors import UserError
    from eventclip.events.camera import EventCamera

    for key, meaning in (("images", "folder of class folders of images"), ("out", "folder for the recordings")):
        if OmegaConf.is_missing(cfg, key):
            raise UserError(f"{key}= is missing, the {meaning}: python -m eventclip.simulate images=DIR out=DIR")
    settings = OmegaConf.to_container(cfg, resolve=True)
    if not isinstance(settings, dict):
        raise TypeError(f"the configuration must be a mapping, got {type(settings).__name__}")
    filming = Filming(
        camera=EventCamera(**settings["camera"]),
        sensor_hw=settings["sensor_hw"],
        amplitude_px=settings["amplitude_px"],
        saccade_us=settings["saccade_us"],
        fit=settings["fit"],
        split=settings["split"],
        seed=settings["seed"],
    )
    made = film_folder(
        settings["images"],
        settings["out"],
        filming,
        leave_out=settings["leave_out"],
        workers=settings["workers"],
        progress=settings["progress"],
    )
    print(f"{settings['out']}: {made.summary()}")


if __name__ == "__main__":
    main()
