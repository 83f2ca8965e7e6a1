"""Every command in the pages is one that exists: it composes, and the cheap ones run."""

import argparse
import os
import re
import runpy
import subprocess
import sys
import warnings
from itertools import cycle, islice
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "src" / "eventclip"
FLAGS = {"-m", "--multirun", "--help", "--version", "--cfg", "job", "--resolve"}


@pytest.fixture(scope="session")
def trained(learnable_root, tiny_clip_json, tmp_path_factory):
    """A checkpoint of a small training, for the pages' ``checkpoint=last.ckpt``."""
    run = tmp_path_factory.mktemp("trained") / "run"
    small = [
        *("experiment=fewshot_ncaltech", f"data.root={learnable_root}", "data.sensor_hw=[60,80]"),
        *("frames.events_per_frame=200", "data.p95_events=600", "data.num_workers=0", "data.augmentation=null"),
        *(f"clip.config={tiny_clip_json}", "clip.arch=null", "clip.pretrained=null", "fewshot.shots=1"),
        *("trainer.max_epochs=1", "logger.tensorboard=null", "callbacks.pictures=null", f"hydra.run.dir={run}"),
    ]
    command = [sys.executable, "-m", "eventclip.train", *small]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run / "checkpoints" / "last.ckpt"


@pytest.fixture
def settled(desk, monkeypatch):
    """A folder with what the pages' commands name, and nothing of the machine's own around them."""
    for name in ("EVENTCLIP_DATA", "EVENTCLIP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    yield desk
    GlobalHydra.instance().clear()


def single_runs(overrides):
    """The runs of a sweep, few of them: each value of each key comes at least once."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line]
        for one in parsed
    ]
    longest = max(map(len, values), default=1)
    return list(zip(*(islice(cycle(one), longest) for one in values), strict=True)) if values else [()]


def compose(command, arguments, monkeypatch, capsys):
    """Let a command print what it would take, in this process."""
    monkeypatch.setattr(sys, "argv", [f"eventclip {command}", *arguments, "--cfg", "job"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    GlobalHydra.instance().clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runpy's, of a module that was imported before
        runpy.run_module(f"eventclip.{command}", run_name="__main__")
    assert re.search(r"^\w+:", capsys.readouterr().out, re.MULTILINE)


def parse_report(arguments, monkeypatch):
    """Let ``report``, which is no Hydra command, read its command line and go no further."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, *given):
        parse(parser, *given)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", ["eventclip report", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as left:
            runpy.run_module("eventclip.report", run_name="__main__")
    assert left.value.code == 0


def as_eventclip(words):
    """A command line as (command, arguments) where it is eventclip's, in whichever of its spellings; else None."""
    if words[:2] == ["sbatch", "scripts/train.sbatch"]:
        assert (ROOT / words[1]).is_file()
        return "train", words[2:]
    if words[:2] == ["python", "-m"] and words[2].startswith("eventclip."):
        return words[2].removeprefix("eventclip."), words[3:]
    if words[:3] == ["python", "-m", "eventclip"]:
        words = words[2:]
    if words[0] != "eventclip":
        return None
    named = len(words) > 1 and not words[1].startswith("-")
    return (words[1], words[2:]) if named else ("", words[1:])


def check_tool(words):
    """Refuse a line that is none of the few other tools' which the pages may name, or names what is not there."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[:2] == ["pip", "install"]:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        extras = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
        assert set(re.findall(r"\[(\w+)\]", words[2])) <= set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))
    elif words[0] == "python":
        assert (ROOT / words[1]).exists(), words
    else:
        assert words[0] == "eval", words  # completion, which is run


def test_every_command_composes(as_told, typed, settled, request, monkeypatch, capsys):
    found = as_eventclip(typed)
    if found is None:
        check_tool(typed)
        return
    command, arguments = found
    if not command:
        assert set(arguments) <= FLAGS
        return
    assert (COMMANDS / f"{command}.py").is_file()
    if command == "report":
        parse_report(arguments, monkeypatch)
        return
    overrides = [argument for argument in arguments if argument not in FLAGS]
    if command == "import_checkpoint" and overrides[0].endswith(".pth"):
        overrides[0] = f"reference={overrides[0]}"
    if command == "evaluate":
        (settled / "last.ckpt").symlink_to(request.getfixturevalue("trained"))
    for run in single_runs(overrides):
        compose(command, run, monkeypatch, capsys)


def test_what_is_marked_runs_as_it_is_typed(as_told, script, desk, command_path):
    # a pipeline that closes early would hide its own exit status; none is in the pages
    environment = os.environ | {"PATH": f"{command_path}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.text],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
