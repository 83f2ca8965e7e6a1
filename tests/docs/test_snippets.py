"""Every Python snippet in the pages is Python, and those that need neither weights nor data run as they stand."""

import ast
import importlib

import pytest


def test_every_snippet_compiles(snippet):
    compile(snippet.text, snippet.name, "exec")
    assert snippet.mark == "run" or snippet.mark.startswith("compiles only: ")


def test_every_imported_name_exists(as_told, snippet):
    for node in ast.walk(ast.parse(snippet.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "eventclip":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.filterwarnings("default")  # a snippet shows the way; what it is warned of is no mistake
def test_what_is_marked_runs(as_told, snippet, desk):
    if snippet.mark == "run":
        exec(compile(snippet.text, snippet.name, "exec"), {"__name__": "__main__"})
