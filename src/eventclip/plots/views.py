"""The views of a recording as a picture or an animation, pixel for pixel as CLIP gets them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from eventclip.files import printable, whole_file
from eventclip.inference.choices import check_picture
from eventclip.inference.result import Classification, Label, Views
from eventclip.views.square import as_image

_NARROWEST, _GAP, _LINE, _COLUMNS = 192, 8, 15, 5
_INK, _PAPER, _FRAME = (34, 34, 34), (255, 255, 255), (190, 190, 190)


def enlargement(side: int) -> int:
    """How many pixels of the picture one pixel of a view takes across, so that small views have room for words."""
    return math.ceil(_NARROWEST / side)


def save_views(
    path: Path, views: Views, found: Classification | None = None, *, top: int = 3, gif_ms: int = 500
) -> None:
    """Write the views of a recording, each with its events, its times and its most probable classes.

    Views are enlarged by a whole number, so that every pixel of theirs is a square of the picture. A GIF has 256
    colours, which is all of a gray view and not quite all of a coloured one.

    Args:
        path: .png, all views side by side; or .gif, one after the other.
        views: what to show.
        found: what the model says of them.
        top: classes under each view.
        gif_ms: time of each view in a GIF [ms].

    Raises:
        UserError: another suffix, or a number below 1.
    """
    check_picture(path, top=top, gif_ms=gif_ms)
    animated = path.suffix.lower() == ".gif"
    cells = [_cell(views, number, found, top) for number in range(len(views))]
    title = _title(views, found, top)
    pages = [_page([cell], title, wide=1) for cell in cells] if animated else [_page(cells, title, wide=_COLUMNS)]
    with whole_file(path) as part:
        if not animated:
            pages[0].save(part, format="PNG", optimize=True)
        else:
            flat = [page.quantize(256) if views.frames.shape[1] == 3 else page.convert("L") for page in pages]
            flat[0].save(part, format="GIF", save_all=True, append_images=flat[1:], duration=gif_ms, loop=0)


def _cell(views: Views, number: int, found: Classification | None, top: int) -> Image.Image:
    """One view with its words below it."""
    side = views.frames.shape[-1]
    scale = enlargement(side)
    first, past = views.spans[number]
    start, end = ((views.times_us[number] - views.times_us[0, 0]) / 1e3).tolist()
    lines = [f"{past - first:,} events", f"{start:.1f} to {end:.1f} ms"]
    if found is not None:
        lines += [_said(label) for label in found.top(top, view=number)]
    cell = Image.new("RGB", (side * scale + 2, side * scale + 2 + _LINE * len(lines) + 4), _PAPER)
    draw = ImageDraw.Draw(cell)
    draw.rectangle((0, 0, side * scale + 1, side * scale + 1), outline=_FRAME)
    image = Image.fromarray(as_image(views.frames[number])).convert("RGB")
    cell.paste(image.resize((side * scale, side * scale), Image.Resampling.NEAREST), (1, 1))
    for place, line in enumerate(lines):
        bold = found is not None and place == 2
        _write(draw, (1, side * scale + 5 + _LINE * place), line, side * scale, bold=bold)
    return cell


def _title(views: Views, found: Classification | None, top: int) -> list[str]:
    height, width = views.sensor_hw
    lines = [
        printable(Path(views.name).name),
        f"{views.events:,} events on {height}x{width} px",
        f"{len(views)} view{'s' * (len(views) > 1)} of at most {views.events_per_frame:,}",
    ]
    return lines + ([", ".join(_said(label) for label in found.top(top))] if found is not None else [])


def _said(label: Label) -> str:
    return f"{label.name}  {100 * label.probability:.0f} %"


def _page(cells: Sequence[Image.Image], title: list[str], *, wide: int) -> Image.Image:
    """Cells in rows below a title, which takes one line where there is room and several where there is not."""
    columns = min(wide, len(cells))
    width, height = cells[0].size
    rows = math.ceil(len(cells) / columns)
    whole = columns * width + (columns + 1) * _GAP
    facts, said = "  ·  ".join(title[:3]), title[3:]
    lines = ([facts] if _length(facts) <= whole - 2 * _GAP else title[:3]) + said
    top = _GAP + _LINE * len(lines) + 4
    page = Image.new("RGB", (whole, top + rows * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(page)
    for place, line in enumerate(lines):
        _write(draw, (_GAP, _GAP + _LINE * place), line, whole - 2 * _GAP, bold=line in said)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        page.paste(cell, (_GAP + column * (width + _GAP), top + row * (height + _GAP)))
    return page


def _font(*, bold: bool = False) -> Any:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), 11)


def _length(text: str) -> float:
    return float(_font().getlength(text))


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, *, bold: bool = False) -> None:
    """Write a line, shortened to the room there is."""
    font = _font(bold=bold)
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(place, text, fill=_INK, font=font)
