"""``python -m eventclip.simulate images=DIR out=DIR``: event recordings of images, by a simulated event camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """See whether both folders were given."""
    from eventclip.config.inputs import check_given

    for key, meaning in (("images", "folder of class folders of images"), ("out", "folder for the recordings")):
        check_given(cfg, key, f", the {meaning}: python -m eventclip.simulate images=DIR out=DIR")


@entry("simulate", before=look)
def main(cfg: DictConfig) -> None:
    """Build camera and settings from the composed configuration, simulate, and say what was made."""
    from dataclasses import fields

    from omegaconf import OmegaConf

    from eventclip.errors import UserError
    from eventclip.files import printable
    from eventclip.simulation.camera import EventCamera
    from eventclip.simulation.folder import Simulation, simulate_folder

    settings = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    camera = settings.pop("camera")
    where = {key: settings.pop(key) for key in ("images", "out")}
    how = {key: settings.pop(key) for key in ("leave_out", "workers", "progress")}
    for prefix, given, kind in (("", settings, Simulation), ("camera.", camera, EventCamera)):
        unknown = set(given) - {field.name for field in fields(kind)}
        if unknown:
            raise UserError(f"{prefix}{min(unknown)} is no setting of the simulation: --cfg job prints all of them")
    simulation = Simulation(camera=EventCamera(**camera), **settings)
    made = simulate_folder(where["images"], where["out"], simulation, **how)
    print(printable(f"{where['out']}: {made.summary()}"))


if __name__ == "__main__":
    main()
