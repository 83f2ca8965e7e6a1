"""Which symbols the tiny CLIP learns, and what they are called: Unicode names, cleaned by the rules below."""

from __future__ import annotations

import re
import unicodedata

from eventclip.simulation.drawings import CLASSES

# Arrows, letters, mathematics and box drawing are left out: they are not things that a picture shows.
RANGES = (
    (0x00A2, 0x00B6), (0x2020, 0x2022), (0x203B, 0x2049), (0x20A0, 0x20BD), (0x2300, 0x23E8), (0x25A0, 0x25FF),
    (0x2600, 0x26E2), (0x2701, 0x2793), (0x2B12, 0x2B54), (0x1F030, 0x1F640),
)  # fmt: skip

LEFT_OUT = re.compile(
    r"ARROW|APL |BRACKET|PARENTHESIS|INTEGRAL|EXTENSION|CROP|CORNER|BULLET|COMMA|SUMMATION|TACK|EMPHASIS|NOT SIGN"
    r"|SUPERSCRIPT|ORDINAL|DIAERESIS|MACRON|HYPHEN|ACUTE|CEDILLA|MICRO|PLUS-MINUS|QUOTATION|UNDERLINE|WITH DOT"
    r"|INSERTION|INVERSE|STRAIGHTNESS|FLATNESS|DECIMAL|PROJECTIVE|VIEWDATA|MONOGRAM|LESSER Y|GREATER Y|TWO DOTS"
    r"|VERTICAL BAR|OVERLINE|FRACTION|THREE LINES|RADICAL|CONJUNCTION|OPPOSITION|NODE|BROKEN BAR|TURNED|REVERSED"
    r"|ARC$|CEILING|FLOOR|TIE$|QUADRANT|FORM TWO|SQUARE BRACKET|NEUTER|BACK$"
    r"|CURVED STEM|DISCONTINUOUS|PERSPECTIVE|SWUNG"
)
# Words about how a glyph is printed, not about what it shows.
PRINTING = re.compile(
    r"\b(BLACK|WHITE|HEAVY|MEDIUM|LIGHT|LARGE|SMALL|VERY|OUTLINED|STRESS|OPEN CENTRE|SHADOWED|UPPER BLADE|TIGHT"
    r"|LOWER BLADE|LOWER RIGHT|UPPER RIGHT|DROP-SHADOWED|ORNAMENT|(?:MUSIC )?SIGN$|SYMBOL$|DINGBAT|NEGATIVE|SANS-SERIF"
    r"|HORIZONTAL|VERTICAL|CENTRE|UNIVERSAL|ROTATED|GREEK|TRIFOLIATE|CHEVRON)\b"
)
MERGED = (
    (r"DOMINO TILE.*", "domino tile"),
    (r"PLAYING CARD .* JOKER", "joker card"),
    (r"PLAYING CARD (JACK|QUEEN|KING|KNIGHT) OF (\w+)", r"\1 card"),
    (r"PLAYING CARD \w+ OF (\w+)", r"card of \1"),
    (r"RECYCLING SYMBOL.*|.*RECYCLED PAPER.*", "recycling symbol"),
    (r"TRIGRAM.*", "trigram"),
    (r"(?:DINGBAT ).*CIRCLED.*(?:DIGIT|NUMBER) (\w+)", r"number \1 in a circle"),
    (r"DIE FACE-.", "die"),
    (r".*SHOGI PIECE", "shogi piece"),
    (r".*DRAUGHTS (MAN|KING)", r"draughts \1"),
    (r"SQUARE WITH .* FILL", "hatched square"),
    (r".*(SQUARE|DIAMOND|TRIANGLE|CIRCLE) (?:WITH|CONTAINING|DIVIDED).*", r"divided \1"),
    (r".*HALF BLACK.*|.*HALF .*CIRCLE", "half circle"),
    (r".*POINTING (?:SMALL )?(TRIANGLE|POINTER)|(?:UPPER|LOWER|BLACK) .*TRIANGLE", "triangle"),
    (r".*RIGHT-POINTING PENTAGON", "signpost"),
    (r".*SHADOWED WHITE (SQUARE|CIRCLE)", r"\1"),
    (r".*ASTERISK", "asterisk"),
    (r".*(?:FOUR|SIX|EIGHT|TWELVE) POINTED.*STAR", "pointed star"),
    (r".*(?:FLORETTE)", "flower"),
    (r".*SPARKLE", "sparkle"),
    (r".*STAR$", "star"),
    (r".*LATIN CROSS", "cross"),
    (r".*LOZENGE", "lozenge"),
    (r".*RECTANGLE", "rectangle"),
    (r".*ELLIPSE", "ellipse"),
    (r".*HEART(?: SUIT)?|.*FLORAL HEART.*", "heart"),
)
BY_HAND = {
    0x00A7: "section sign", 0x2020: "dagger", 0x2021: "double dagger", 0x203D: "interrobang", 0x20AC: "euro",
    0x2318: "place of interest", 0x2388: "helm", 0x2607: "crooked arrow", 0x2608: "thunderstorm", 0x2609: "circled dot",
    0x2613: "saltire", 0x2668: "hot springs", 0x2690: "flag", 0x26A0: "warning triangle", 0x2721: "star of david",
    0x2719: "greek cross", 0x271A: "greek cross", 0x271B: "greek cross", 0x271C: "greek cross", 0x25C9: "bullseye",
    0x25CE: "bullseye", 0x25A3: "square in a square", 0x25C8: "diamond in a diamond", 0x262A: "star and crescent",
    0x2715: "x mark", 0x2716: "x mark", 0x2717: "x mark", 0x2718: "x mark", 0x2713: "check mark", 0x2714: "check mark",
    0x2610: "ballot box", 0x26AD: "two rings", 0x2662: "diamond", 0x2666: "diamond", 0x2763: "heart exclamation mark",
    0x2762: "exclamation mark", 0x270C: "victory hand", 0x270D: "writing hand", 0x2711: "pen nib", 0x2712: "pen nib",
    0x2742: "star in a circle", 0x272A: "star in a circle", 0x2730: "star", 0x2756: "four diamonds", 0x273E: "flower",
    0x2641: "earth symbol", 0x2644: "saturn symbol", 0x2643: "jupiter symbol", 0x263F: "mercury symbol",
    0x2646: "neptune symbol", 0x2645: "uranus symbol", 0x26E2: "uranus symbol", 0x2647: "pluto symbol",
    0x265F: "chess pawn", 0x26B0: "coffin", 0x1F42D: "mouse", 0x1F42E: "cow", 0x1F431: "cat", 0x1F435: "monkey",
}  # fmt: skip


def _clean(name: str) -> str:
    for pattern, replacement in MERGED:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name).lower()
    return " ".join(PRINTING.sub(" ", name).lower().replace("-", " ").split())


def concepts() -> dict[str, list[int]]:
    """Name every symbol in the ranges: concept -> its code points; the demo's classes carry the demo's names."""
    named = {code: name for name, codes in CLASSES.items() for code in codes}
    result: dict[str, list[int]] = {name: list(codes) for name, codes in CLASSES.items()}
    for first, last in RANGES:
        for code in range(first, last + 1):
            name = unicodedata.name(chr(code), "")
            if code in named or not name or (code not in BY_HAND and LEFT_OUT.search(name)):
                continue
            result.setdefault(BY_HAND.get(code) or _clean(name), []).append(code)
    return result
