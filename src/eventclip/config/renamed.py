"""Settings and options that had another name in version 0.1, and the sentence that names the new one.

A line says nothing while the old name is still a setting of the command. Where a setting moved into another section, or
an option of a group has another name, its line says so as it is typed.
"""

from __future__ import annotations

from collections.abc import Collection

SETTINGS = {
    "data.holdout": "data.split_fraction",
    "data.percentile_events": "data.p95_events",
    "features.passes": "features.copies",
    "fewshot.draw": "fewshot.sampling",
    "pseudo.versions": "pseudo.tta",
    "views.fit": "views.resize_mode",
}
"""Old full name of a setting -> the one that it has now."""

OPTIONS = {
    ("features", "bank"): "cached",
    ("features", "online"): "live",
}
"""(group, old option) -> the option's name now."""


def renamed_setting(key: str) -> str | None:
    """A sentence for a setting that has another name now; None where it has not.

    Args:
        key: full name of what is no setting.
    """
    new = SETTINGS.get(key.lstrip("+~"))
    return None if new is None else f"{key.lstrip('+~')} is called {new} now: give {new}="


def renamed_option(group: str, option: str, options: Collection[str]) -> str | None:
    """A sentence for an option of a group that has another name now; None where it has not.

    Args:
        group: it was chosen of.
        option: what was chosen.
        options: that the group has.
    """
    new = OPTIONS.get((group, option))
    return None if new is None or new not in options else f"{group}={option} is called {group}={new} now"
