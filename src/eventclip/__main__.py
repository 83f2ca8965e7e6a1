"""``eventclip COMMAND ...``: every command by its name, as ``python -m eventclip.COMMAND ...`` runs it."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any

COMMANDS = {
    "train": "fit an adapter on top of CLIP, or CLIP itself, and test it",
    "evaluate": "test what a checkpoint learned, on any split or data set",
    "predict": "classify recordings by words, or with a checkpoint",
    "show": "draw the frames of a recording as CLIP gets them",
    "pseudo_label": "let a teacher label recordings to train on",
    "align": "teach CLIP the event camera from unlabelled images",
    "simulate": "make recordings from images with a simulated event camera",
    "pairs": "find which image each recording shows, by name or by its events",
    "pack": "put a data set into one file, which is read in its place",
    "data_check": "read a whole data set, say what is in it and what is damaged",
    "import_checkpoint": "take over a checkpoint of the paper's published implementation",
    "export": "write a CLIP, aligned or as a checkpoint left it, for plain open_clip",
    "report": "collect the results of many runs in one table and a curve",
}
"""Name of each command, in the order in which one comes to need them -> what it does."""

_COMPLETES = ("--shell-completion", "-sc")


def main() -> None:
    """Run the command that is named first; without one, list them.

    Raises:
        SystemExit: with what the command ends with, or a sentence where there is no such command.
    """
    first, *rest = sys.argv[1:] or ["--help"]
    if first in ("--help", "-h"):
        print(overview(), end="")
    elif first == "--version":
        from eventclip import __version__

        print(f"eventclip {__version__}")
    elif first in _COMPLETES:
        _complete(rest)
    elif first in COMMANDS:
        _run(first, rest)
    else:
        close = difflib.get_close_matches(first.replace("-", "_"), COMMANDS, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(COMMANDS)}"
        sys.exit(f"eventclip: there is no command {first}, {hint}")


def overview() -> str:
    """All commands, a line each, and how to ask for more."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    more = "eventclip COMMAND --help tells more; eventclip train alone lists the experiments"
    return "\n".join(["eventclip COMMAND KEY=VALUE ...", "", *lines, "", more]) + "\n"


def _run(command: str, arguments: Sequence[str]) -> None:
    """Run a command's module as Python's own -m does: what starts it again, for another process, finds it by that."""
    sys.argv = [sys.argv[0], *arguments]
    runpy.run_module(f"eventclip.{command}", run_name="__main__", alter_sys=True)


def _complete(arguments: Sequence[str]) -> None:
    """Do what a shell asks Hydra's completion for, of the commands and of what each of them takes."""
    request, _, shell = (arguments[0] if arguments else "").partition("=")
    if request == "query":
        _suggest(os.environ.get("COMP_LINE", ""), arguments)
        return
    from hydra.core.plugins import Plugins
    from hydra.plugins.completion_plugin import CompletionPlugin

    classes: Any = Plugins.instance().discover(CompletionPlugin)
    plugins = {plugin.provides(): plugin for plugin in classes}
    if request not in ("install", "uninstall") or shell not in plugins:
        shells = " or ".join(sorted(plugins))
        sys.exit(f"eventclip: --shell-completion takes install=SHELL or uninstall=SHELL, where SHELL is {shells}")
    sys.argv = ["eventclip"]  # what is completed, wherever it lies
    plugin = plugins[shell](None)
    getattr(plugin, request)()


def _suggest(line: str, arguments: Sequence[str]) -> None:
    """Print what may come next in a command line: a command, or what Hydra suggests for the one that is there."""
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line[-1].isspace()):
        print(" ".join(COMMANDS))
    elif words[1] in COMMANDS and words[1] != "report":
        os.environ["COMP_LINE"] = re.sub(r"^\s*\S+\s+\S+\s*", "eventclip ", line)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            _run(words[1], ["--shell-completion", *arguments])  # mistakes in what is typed so far are not told


if __name__ == "__main__":
    main()
