"""Draws what a command prints in colour as a picture of a terminal.

    command='loracook preview recipes/quickstart.yaml --rows 2'
    (echo "$ $command"; FORCE_COLOR=1 $command) | python docs/draw.py docs/preview.png

Needs Pillow and the font DejaVu Sans Mono.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

SIZE, MARGIN = 15, 16
PAPER, INK = (24, 26, 30), (214, 216, 220)
COLOURS = {
    "0": INK,
    "1": INK,
    "2": (128, 132, 140),
    "31": (232, 110, 100),
    "32": (120, 205, 135),
    "33": (230, 190, 90),
}
CODE = re.compile("\x1b\\[([0-9;]*)m")


def runs(line: str, colour: tuple[int, int, int]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The stretches of one colour in a line; the last one, empty, carries the colour on to the next line."""
    parts = CODE.split(line)
    yield parts[0], colour
    for codes, text in zip(parts[1::2], parts[2::2], strict=True):
        for code in codes.split(";"):
            colour = COLOURS.get(code or "0", colour)
        yield text, colour
    yield "", colour


def draw(text: str) -> Image.Image:
    """The text on a dark ground, a line for each of its lines."""
    font = ImageFont.truetype("DejaVuSansMono.ttf", SIZE)
    lines, wide = text.rstrip("\n").split("\n"), font.getlength("m")
    width = max(len(CODE.sub("", line)) for line in lines) * wide + 2 * MARGIN
    high = SIZE + 5
    picture = Image.new("RGB", (int(width), high * len(lines) + 2 * MARGIN), PAPER)
    pen, colour = ImageDraw.Draw(picture), INK
    for row, line in enumerate(lines):
        across = float(MARGIN)
        for part, tint in list(runs(line, colour)):
            pen.text((across, MARGIN + row * high), part, font=font, fill=tint)
            across, colour = across + font.getlength(part), tint
    return picture


if __name__ == "__main__":
    draw(sys.stdin.read()).save(sys.argv[1], optimize=True)
