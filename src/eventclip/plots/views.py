"""The views of a recording as a picture or an animation, pixel for pixel as CLIP gets them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eventclip.errors import UserError, printable
from eventclip.files import whole_file
from eventclip.plots.style import INK, PAPER
from eventclip.views.resize import as_image

_NARROWEST, _GAP, _LINE, _LETTERS, _COLUMNS = 192, 8, 15, 11, 5
_EDGE = "#bebebe"


class ShownView(NamedTuple):
    """A view and what is said below it.

    Attributes:
        pixels: uint8 (C, S, S), C = 1 for gray and 3 for colour.
        lines: words, from top to bottom.
    """

    pixels: NDArray[np.uint8]
    lines: Sequence[str]


def check_picture(path: Path, *, top: int, gif_ms: int) -> None:
    """Refuse a picture that cannot be made.

    Args:
        path: where it goes.
        top: classes under each view.
        gif_ms: time of each view in a GIF [ms].

    Raises:
        UserError: another suffix, or a number below 1.
    """
    if path.suffix.lower() not in (".png", ".gif"):
        raise UserError(f"out={path} must end in .png or .gif")
    if min(top, gif_ms) < 1:
        raise UserError(f"top={top} and gif_ms={gif_ms} must be 1 or more")


def enlargement(side: int) -> int:
    """How many pixels of the picture one pixel of a view takes across, so that small views have room for words."""
    return math.ceil(_NARROWEST / side)


def save_views(
    path: Path, views: Sequence[ShownView], facts: Sequence[str], *, answer: str | None = None, gif_ms: int = 500
) -> None:
    """Write the views of a recording, each with its words, below a title.

    Views are enlarged by a whole number, so that every pixel of theirs is a square of the picture. A GIF has 256
    colours, which is all of a gray view and not quite all of a coloured one.

    Args:
        path: .png, all views side by side; or .gif, one after the other.
        views: one or more, with as many lines each.
        facts: on the recording; they share the title's first line if there is room.
        answer: what a model makes of it: a bold line of the title, and the third line of each view is bold as well.
        gif_ms: time of each view in a GIF [ms].

    Raises:
        UserError: another suffix, or a number below 1.
    """
    check_picture(path, top=1, gif_ms=gif_ms)
    animated = path.suffix.lower() == ".gif"
    cells = [_cell(view, bold=None if answer is None else 2) for view in views]
    pages = (
        [_page([cell], facts, answer, wide=1) for cell in cells]
        if animated
        else [_page(cells, facts, answer, wide=_COLUMNS)]
    )
    coloured = len(views[0].pixels) == 3
    with whole_file(path) as part:
        if not animated:
            pages[0].save(part, format="PNG", optimize=True)
        else:
            flat = [page.quantize(256) if coloured else page.convert("L") for page in pages]
            flat[0].save(part, format="GIF", save_all=True, append_images=flat[1:], duration=gif_ms, loop=0)


def _cell(view: ShownView, *, bold: int | None) -> Image.Image:
    """One view with its words below it, of which one line may be bold."""
    side = view.pixels.shape[-1]
    wide = side * enlargement(side)
    cell = Image.new("RGB", (wide + 2, wide + 2 + _LINE * len(view.lines) + 4), PAPER)
    draw = ImageDraw.Draw(cell)
    draw.rectangle((0, 0, wide + 1, wide + 1), outline=_EDGE)
    image = Image.fromarray(as_image(view.pixels)).convert("RGB")
    cell.paste(image.resize((wide, wide), Image.Resampling.NEAREST), (1, 1))
    for place, line in enumerate(view.lines):
        _write(draw, (1, wide + 5 + _LINE * place), line, wide, bold=place == bold)
    return cell


def _page(cells: Sequence[Image.Image], facts: Sequence[str], answer: str | None, *, wide: int) -> Image.Image:
    """Cells in rows below a title, which takes one line where there is room and several where there is not."""
    columns = min(wide, len(cells))
    width, height = cells[0].size
    rows = math.ceil(len(cells) / columns)
    whole = columns * width + (columns + 1) * _GAP
    together = "  ·  ".join(map(printable, facts))
    lines = [together] if _font().getlength(together) <= whole - 2 * _GAP else [printable(fact) for fact in facts]
    top = _GAP + _LINE * (len(lines) + (answer is not None)) + 4
    page = Image.new("RGB", (whole, top + rows * (height + _GAP)), PAPER)
    draw = ImageDraw.Draw(page)
    for place, line in enumerate(lines):
        _write(draw, (_GAP, _GAP + _LINE * place), line, whole - 2 * _GAP)
    if answer is not None:
        _write(draw, (_GAP, _GAP + _LINE * len(lines)), answer, whole - 2 * _GAP, bold=True)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        page.paste(cell, (_GAP + column * (width + _GAP), top + row * (height + _GAP)))
    return page


@lru_cache
def _font(*, bold: bool = False) -> Any:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), _LETTERS)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, *, bold: bool = False) -> None:
    """Write a line, shortened to the room there is."""
    font = _font(bold=bold)
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(place, text, fill=INK, font=font)
