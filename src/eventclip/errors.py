"""The one way this project tells a user about a mistake that the user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input, told in one sentence: what was wrong, where, what was expected, what to do.

    Commands print the sentence and exit with status 1; they never show a traceback for it.
    """


class RecordingError(UserError):
    """A recording that cannot be read or does not hold what its format promises."""
