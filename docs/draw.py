"""Redraws the pictures of terminals in docs/ from what commands print now.

    python docs/draw.py               # all three; the quickstart takes some minutes
    python docs/draw.py plan preview  # some

Each command runs in an empty folder with a copy of recipes/. Needs Pillow and the font DejaVu Sans Mono.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "plan": "loracook plan recipes/quickstart.yaml --memory 1.5GB",
    "preview": "loracook preview recipes/quickstart.yaml --rows 2",
    "quickstart": "loracook run recipes/quickstart.yaml",
}
SIZE, MARGIN = 15, 16
PAPER, INK = (24, 26, 30), (214, 216, 220)
RED, GREEN, YELLOW, BLUE = (232, 110, 100), (120, 205, 135), (230, 190, 90), (110, 160, 235)
MAGENTA, CYAN, DIM = (200, 130, 220), (100, 200, 205), (128, 132, 140)
COLORS = {"0": INK, "2": DIM, "22": INK, "39": INK, "90": DIM}
COLORS |= dict(zip(map(str, range(31, 37)), (RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN), strict=True))
COLORS |= {f"9{code[1]}": color for code, color in COLORS.items() if code.startswith("3") and code != "39"}
CODE = re.compile("\x1b\\[([0-9;]*)m")


def printed(command: str) -> str:
    """A command and what it prints on a terminal with colors."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "recipes", Path(folder) / "recipes")
        environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "120"}
        ran = subprocess.run(command.split(), cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{command}: {ran.stderr}")
    return f"$ {command}\n{ran.stdout}"


def runs(line: str, color: tuple[int, int, int]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The stretches of one color in a line; the last one, empty, carries the color on to the next line."""
    parts = CODE.split(line)
    yield parts[0], color
    for codes, text in zip(parts[1::2], parts[2::2], strict=True):
        for code in codes.split(";"):
            color = COLORS.get(code or "0", color)
        yield text, color
    yield "", color


def draw(text: str) -> Image.Image:
    """The text on a dark ground, a line for each of its lines."""
    font = ImageFont.truetype("DejaVuSansMono.ttf", SIZE)
    lines, letter = text.rstrip("\n").split("\n"), font.getlength("m")
    width = max(len(CODE.sub("", line)) for line in lines) * letter + 2 * MARGIN
    height = SIZE + 5
    picture = Image.new("RGB", (int(width), height * len(lines) + 2 * MARGIN), PAPER)
    pen, color = ImageDraw.Draw(picture), INK
    for row, line in enumerate(lines):
        across = float(MARGIN)
        for part, ink in list(runs(line, color)):
            pen.text((across, MARGIN + row * height), part, font=font, fill=ink)
            across, color = across + font.getlength(part), ink
    return picture


if __name__ == "__main__":
    for name in sys.argv[1:] or COMMANDS:
        draw(printed(COMMANDS[name])).save(ROOT / "docs" / f"{name}.png", optimize=True)
