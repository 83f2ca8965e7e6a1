"""Small files that would unpack to more than the memory there is."""

from __future__ import annotations

from eventclip.errors import RecordingError

_SMALL = 1 << 26
_MOST_TIMES = 200  # events of a camera compress to a third, those of a made-up recording to a tenth


def refuse_bomb(unpacked: int, stored: int, largest: int) -> None:
    """Refuse what unpacks to more than is allowed, or than events in so few bytes can.

    Args:
        unpacked: bytes once it is unpacked.
        stored: bytes that it takes in the file.
        largest: most bytes that are allowed.

    Raises:
        RecordingError: told before anything is unpacked.
    """
    if unpacked > largest:
        raise RecordingError(
            f"would unpack to {unpacked:,} bytes, more than the {largest:,} that are allowed: unpack it, and give its "
            f"events as a .npy, which is read in pieces"
        )
    if unpacked > _SMALL and unpacked > _MOST_TIMES * stored:
        raise RecordingError(
            f"would unpack from {stored:,} to {unpacked:,} bytes, which events do not: it is damaged or made to fill "
            f"the memory"
        )
