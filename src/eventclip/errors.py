"""The one way this project tells a user about a mistake that the user can mend, and how others' words stand in it."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input, told in one sentence: what was wrong, where, what was expected, what to do.

    Commands print the sentence and exit with status 1; they never show a traceback for it.
    """


class RecordingError(UserError):
    """A recording that cannot be read or does not hold what its format promises."""


def whole(value: object, name: str, least: int = 1) -> int:
    """A number as a whole one; 1e5, which is one, passes.

    Args:
        value: what was given, of any kind.
        name: what it was given as, for the message.
        least: the smallest that there is.

    Raises:
        UserError: none, or a smaller one.
    """
    try:
        number: int = int(value)  # type: ignore[call-overload]
        if number == value and number >= least:  # "5" is not equal to 5
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{name} must be a whole number of {least} or more, got {said(repr(value))}")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Text that every terminal, log and table takes: what is not printable as an escape such as ``\x1b``.

    Args:
        text: what may hold anything: names of files, and names inside them.
        lines: leave the ends of lines as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or (lines and letter == "\n") else ascii(letter)[1:-1] for letter in text
    )


def said(value: object, most: int = 120) -> str:
    """A stranger's value as it may stand in a sentence: on one line, printable, and cut where it is long."""
    text = str(value) if isinstance(value, str) and value.isprintable() and value else repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason(error: BaseException, most: int = 200) -> str:
    """What a library or the system says of an error, in one line and cut where it is long; its kind if nothing."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(told.split())[:most] or type(error).__name__
