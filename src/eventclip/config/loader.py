"""Hydra's own composition, and then the schema: what is shown, saved and run is what was checked."""

from __future__ import annotations

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from eventclip.config.checking import check_config
from eventclip.config.hydra_errors import check_choices


class CheckingLoader(ConfigLoaderImpl):
    """Composes a command's configuration and checks it, in this process and in a sweep's jobs elsewhere.

    Args:
        config_search_path: Hydra's.
        command: one of :data:`eventclip.config.schema.COMMANDS`.
    """

    def __init__(self, config_search_path: ConfigSearchPath, command: str) -> None:
        super().__init__(config_search_path=config_search_path)
        self.command = command

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        """Compose, check and convert; the further arguments are Hydra's.

        Raises:
            UserError: a choice that is none, or a value of another kind than its setting's.
        """
        parsed = OverridesParser.create(config_loader=self).parse_overrides(overrides)
        options = {
            one.key_or_group: self.get_group_options(one.key_or_group, ObjectType.CONFIG)
            for one in parsed
            if self.repository.group_exists(one.key_or_group)
        }
        check_choices(parsed, options)
        cfg = super().load_configuration(config_name, overrides, *args, **kwargs)
        check_config(cfg, self.command)
        return cfg
