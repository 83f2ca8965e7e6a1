"""A name of version 0.1 ends in a sentence that names the new one, wherever it is given."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from eventclip.config.checking import check_config, settings_of
from eventclip.config.composition import CONFIG_DIR, register_schema
from eventclip.config.renamed import OPTIONS, SETTINGS, renamed_option, renamed_setting
from eventclip.config.sentences import hydra_sentence
from eventclip.errors import UserError

KNOWN = {key for command in ("train", "pseudo_label", "predict") for key in settings_of(command)}


def test_a_setting_has_its_old_name_or_its_new_one():
    for old, new in SETTINGS.items():
        assert (old in KNOWN) != (new in KNOWN), (old, new)


def test_an_option_has_its_old_name_or_its_new_one():
    for (group, old), new in OPTIONS.items():
        options = {path.stem for path in Path(CONFIG_DIR, group).glob("*.yaml")}
        assert (old in options) != (new in options), (group, old)
        assert (renamed_option(group, old, options) is not None) == (new in options)


@pytest.mark.parametrize("old", sorted(SETTINGS))
@pytest.mark.parametrize("sign", ["", "+", "++", "~"])
def test_the_sentence_names_the_new_name(old, sign):
    assert renamed_setting(f"{sign}{old}") == f"{old} is called {SETTINGS[old]} now: give {SETTINGS[old]}="


def test_a_setting_that_had_no_other_name_has_no_sentence():
    assert renamed_setting("adapter.width") is None
    assert renamed_option("features", "other", ["cached", "live"]) is None


def composed(*overrides):
    register_schema()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", list(overrides))
    check_config(cfg, "train")


def typed(old, sign):
    """What an old setting ends in on the command line; None where it is a setting still."""
    try:
        composed("data=folder", f"{sign}{old}={'[as_is]' if old.startswith('pseudo') else 'x'}")
    except (HydraException, UserError) as error:
        return hydra_sentence(error, settings_of("train"))
    return None


@pytest.mark.parametrize("old", [key for key in sorted(SETTINGS) if key.startswith(("data.", "fewshot.", "views."))])
@pytest.mark.parametrize("sign", ["", "+"])
def test_an_old_setting_on_the_command_line_is_told(old, sign):
    assert (typed(old, sign) == renamed_setting(old)) == (old not in KNOWN)


@pytest.mark.parametrize("old", [key for key in sorted(SETTINGS) if not key.startswith("pseudo.")])
def test_an_old_setting_in_an_experiment_is_told(old, tmp_path):
    section, _, name = old.partition(".")
    (tmp_path / "experiment").mkdir()
    cached = next(one for one in ("cached", "bank") if Path(CONFIG_DIR, "features", f"{one}.yaml").is_file())
    defaults = f"defaults:\n  - override /features: {cached}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{defaults}{section}: {{{name}: odd}}\n")
    with pytest.raises(UserError, match=old) as stopped:
        composed("experiment=mine", "data=folder", f"hydra.searchpath=[file://{tmp_path}]")
    assert (str(stopped.value) == renamed_setting(old)) == (old not in KNOWN)
