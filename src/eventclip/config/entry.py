"""How every command begins and ends: Hydra composes, the schema checks, and whatever goes wrong is one sentence.

Nothing heavy is imported before :func:`entry`'s command runs, so that ctrl-C is told in one line from the first moment,
and Hydra neither for ``--help`` nor for the list of experiments, which read the YAML tree as it lies.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from eventclip.config import CONFIG_DIR

if TYPE_CHECKING:
    from omegaconf import DictConfig

Task = Callable[["DictConfig"], Any]

_HELP = ("--help", "-h")
_SWEEPS = ("-m", "--multirun")


def entry(
    name: str,
    *,
    before: Task | None = None,
    experiments: bool = False,
    checkpoint: Callable[[list[str]], Mapping[str, Any]] | None = None,
    alone: str | None = None,
) -> Callable[[Task], Callable[[], None]]:
    """Make a task, which takes the composed and checked configuration, a command.

    Args:
        name: of the command and its configuration.
        before: looks for mistakes that can be told without heavy imports, and raises a UserError for the first.
        experiments: whether the command lists its experiments where nothing is chosen.
        checkpoint: gives, from the arguments, the configuration that the checkpoint named among them brings along,
            which then stands behind what else is said there.
        alone: the setting whose value, a path, may come first and without its name.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            from eventclip.config.sentences import end_with, full_errors, interrupted

            atexit.register(gc.freeze)  # looking once more through all that was imported takes a second
            try:
                if set(_HELP) & set(sys.argv[1:]):
                    print(help_of(name, sys.argv[1:]), end="")
                elif "--version" in sys.argv[1:]:
                    from eventclip import __version__

                    print(f"eventclip {__version__}")
                elif experiments and not set(sys.argv[1:]) - set(_SWEEPS):
                    print(experiments_of(name), end="")
                else:
                    _run(name, task, before, checkpoint, alone)
            except KeyboardInterrupt:
                interrupted()
            except Exception as error:
                from eventclip.config.checking import settings_of
                from eventclip.config.sentences import hydra_sentence

                sentence = hydra_sentence(error, settings_of(name), task.__code__)
                if sentence is None or full_errors():
                    raise
                end_with(sentence)

        return main

    return decorate


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import what a command works with: a million objects and no garbage, for which Python would look all the while."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, interpolations filled in; none may be missing."""
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def help_of(name: str, arguments: Sequence[str] = ()) -> str:
    """What a command is for, the options of its groups and the settings at its root, as its YAML file has them.

    Args:
        name: of the command.
        arguments: of the command line, ``--config-dir`` perhaps among them.
    """
    header, _, _ = _parted(name)
    chosen, settings = _settings_of(name)
    folders = [Path(CONFIG_DIR), *_added_folders(arguments)]
    groups = {group: _options(name, group, folders) for group in sorted(chosen)}
    width = max(map(len, groups), default=0)
    lines = [f"eventclip {name} GROUP=OPTION ... KEY=VALUE ...", "", *header, ""]
    if groups:
        listed = [_wrapped(f"  {group:{width}}  ", ", ".join(options)) for group, options in groups.items()]
        lines += ["Groups and their options:", *listed, ""]
    lines += [
        *("Settings at the root:", *(f"  {line}".rstrip() for line in settings), ""),
        "--cfg job          print the whole configuration, the settings of each group among them, and run nothing",
        "-m                 one run for each combination of values, such as seed=0,1,2",
        "--config-dir DIR   options and experiments of your own, in the same layout",
        "--hydra-help       what else Hydra's command line takes",
    ]
    return "\n".join(lines) + "\n"


def experiments_of(name: str) -> str:
    """The experiments that a command can be given, a line each: name, and what its file says first."""
    files = _experiment_files(name, [Path(CONFIG_DIR)])
    width = max(len(path.stem) for path in files)
    lines = [f"  {path.stem:{width}}  {_first_words(path)}" for path in files]
    source = "images=DIR" if name == "align" else "data=NAME"
    how = (
        f"eventclip {name} experiment=NAME KEY=VALUE ...   runs one; with --cfg job it is printed and not run\n"
        f"eventclip {name} {f'{source} clip=NAME ...':28}   takes the defaults of each group; --help lists the groups"
    )
    return "\n".join(["Experiments:", *lines, "", how]) + "\n"


def _run(
    name: str,
    task: Task,
    before: Task | None,
    checkpoint: Callable[[list[str]], Mapping[str, Any]] | None,
    alone: str | None,
) -> None:
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from eventclip.config.checking import check_config, settings_of
    from eventclip.config.command_line import named, quoted
    from eventclip.config.composition import (
        PseudoLabelConfig,
        TrainConfig,
        command,
        offer_checkpoint,
        register_schema,
    )
    from eventclip.config.run_folders import remove_unused_folder
    from eventclip.errors import UserError
    from eventclip.parallel import share_cores

    share_cores()

    @command
    @functools.wraps(task)
    def checked(cfg: DictConfig) -> Any:
        try:
            check_config(cfg, name, resolve=True)
            if before is not None:
                before(cfg)
            return task(cfg)
        except UserError:
            remove_unused_folder()
            raise

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{' '.join(sys.argv[1:])} cannot be read ({message}): expected KEY=VALUE ..., or --help")

    register_schema(PseudoLabelConfig if name == "pseudo_label" else TrainConfig)
    version.setbase("1.3")
    parser: Any = get_args_parser()
    parser.error = refuse
    typed = sys.argv
    arguments = typed[1:] if alone is None else named(typed[1:], alone)
    sys.argv = [typed[0], *quoted(arguments, settings_of(name))]
    try:
        if checkpoint is not None:
            offer_checkpoint(sys.argv[1:], checkpoint)
        with _checking(name):
            _run_hydra(parser.parse_args(), parser, checked, CONFIG_DIR, name)
    finally:
        sys.argv = typed


@contextlib.contextmanager
def _checking(name: str) -> Iterator[None]:
    """Let Hydra check what it composes, for this command, and hand its errors on in place of printing them."""
    from importlib import import_module

    from eventclip.config.composition import CheckingLoader

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


def _parted(name: str) -> tuple[list[str], list[str], list[Any]]:
    """Of a YAML file: the comment at its head, the lines of its settings without Hydra's, and its defaults."""
    import yaml

    text = (Path(CONFIG_DIR) / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = [line.removeprefix("#").removeprefix(" ") for line in lines[:count]]
    sections = re.split(r"^(?=\w)", "\n".join(lines[count:]), flags=re.MULTILINE)
    kept = "".join(section for section in sections if not section.startswith(("defaults:", "hydra:")))
    return header, kept.strip("\n").splitlines(), yaml.safe_load(text).get("defaults", [])


def _settings_of(name: str) -> tuple[set[str], list[str]]:
    """The groups that a command's configuration chooses options of, and its settings; those it stands on come last."""
    _, settings, defaults = _parted(name)
    groups: set[str] = set()
    for default in defaults:
        if isinstance(default, dict):
            groups |= {key for key in default if not key.startswith("override ")}
        elif (Path(CONFIG_DIR) / f"{default}.yaml").is_file():
            below, further = _settings_of(default)
            groups, settings = groups | below, [*settings, "", *further]
    return groups, settings


def _options(name: str, group: str, folders: Sequence[Path]) -> list[str]:
    if group == "experiment":
        return [path.stem for path in _experiment_files(name, folders)]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _experiment_files(name: str, folders: Sequence[Path]) -> list[Path]:
    """Experiments for a command: those whose head names it first, and those that name none."""
    files = {path.stem: path for folder in folders for path in sorted((folder / "experiment").glob("*.yaml"))}
    wanted = name if name in ("pseudo_label", "align") else "train"  # what was trained is imported, too
    return [files[stem] for stem in sorted(files) if _command_of(files[stem]) in (wanted, None)]


def _command_of(path: Path) -> str | None:
    command = re.search(r"^#.*?\beventclip[ .](\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return None if command is None else command[1]


def _first_words(path: Path) -> str:
    """The first sentence of an experiment's comment, without the command that may stand beside it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#") and not line.startswith("# @package")]
    return re.split(r"\s{2,}|; ", comments[0])[0] if comments else ""


def _wrapped(head: str, text: str) -> str:
    """A text after a head, its further lines indented as far."""
    return textwrap.fill(text, 120, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _added_folders(arguments: Sequence[str]) -> list[Path]:
    """Folders given by ``--config-dir``, however it is written."""
    flags = ("--config-dir", "-cd")
    pairs = zip(arguments, [*arguments[1:], ""], strict=False)
    apart = [following for flag, following in pairs if flag in flags]
    joined = [one.partition("=")[2] for one in arguments if one.startswith("--config-dir=")]
    return [Path(one) for one in apart + joined if one]
