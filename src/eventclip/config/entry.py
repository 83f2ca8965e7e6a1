"""How every command begins and ends: Hydra composes, the schema checks, and whatever goes wrong is one sentence.

Nothing heavy is imported before :func:`entry`'s command runs, so that ctrl-C is told in one line from the first moment.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

Task = Callable[["DictConfig"], Any]


def entry(
    name: str, *, begin: Callable[[], None] | None = None, before: Task | None = None
) -> Callable[[Task], Callable[[], None]]:
    """Make a task, which takes the composed and checked configuration, a command.

    Args:
        name: of the command and its configuration.
        begin: what to do with ``sys.argv``, paths in it quoted for Hydra, before anything is composed.
        before: looks for mistakes that can be told without heavy imports, and raises a UserError for the first.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            from eventclip.config.sentences import end_with, full_errors, interrupted

            try:
                _run(name, task, begin, before)
            except KeyboardInterrupt:
                interrupted()
            except Exception as error:
                from eventclip.config.checking import settings_of
                from eventclip.config.hydra_errors import hydra_sentence

                told = hydra_sentence(error, settings_of(name), task.__code__)
                if told is None or full_errors():
                    raise
                end_with(told)

        return main

    return decorate


def _run(name: str, task: Task, begin: Callable[[], None] | None, before: Task | None) -> None:
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from eventclip.config.checking import check_config, settings_of
    from eventclip.config.command_line import quoted
    from eventclip.config.composition import CONFIG_DIR, PseudoLabelConfig, TrainConfig, command, register_schema
    from eventclip.errors import UserError

    @command
    @functools.wraps(task)
    def checked(cfg: DictConfig) -> Any:
        check_config(cfg, name, resolve=True)
        if before is not None:
            before(cfg)
        return task(cfg)

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{' '.join(sys.argv[1:])} cannot be read ({message}): expected KEY=VALUE ..., or --help")

    register_schema(PseudoLabelConfig if name == "pseudo_label" else TrainConfig)
    version.setbase("1.3")
    parser: Any = get_args_parser()
    parser.error = refuse
    typed = sys.argv
    sys.argv = [typed[0], *quoted(typed[1:], settings_of(name))]
    try:
        if begin is not None:
            begin()
        with _checking(name):
            _run_hydra(parser.parse_args(), parser, checked, CONFIG_DIR, name)
    finally:
        sys.argv = typed


@contextlib.contextmanager
def _checking(name: str) -> Iterator[None]:
    """Let Hydra check what it composes, for this command, and hand its errors on in place of printing them."""
    from importlib import import_module

    from eventclip.config.loader import CheckingLoader

    composing: Any = import_module("hydra._internal.hydra")
    running: Any = import_module("hydra._internal.utils")
    saving: Any = import_module("hydra.core.utils")
    loader, report = composing.ConfigLoaderImpl, running.run_and_report
    save = saving._save_config  # noqa: SLF001  (Hydra has no door for what it writes itself)

    def save_named(config: Any, filename: str, folder: Path) -> None:
        try:
            save(config, filename, folder)
        except OSError as error:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(folder / filename)) from error

    composing.ConfigLoaderImpl = functools.partial(CheckingLoader, command=name)
    running.run_and_report = lambda run: run()
    saving._save_config = save_named  # noqa: SLF001
    try:
        yield
    finally:
        composing.ConfigLoaderImpl, running.run_and_report = loader, report
        saving._save_config = save  # noqa: SLF001
