"""Write kitchen-train.json and kitchen-validation.json: small sums and swaps of a kitchen, in alpaca rows."""

from __future__ import annotations

import json
import random
from pathlib import Path

MILLILITRES = {"cup": 240, "tablespoon": 15, "teaspoon": 5, "pint": 480, "quart": 960}
SWAPS = {
    "buttermilk": "milk with a spoon of lemon juice",
    "an egg in a cake": "a mashed banana",
    "butter for frying": "a neutral oil",
    "fresh basil": "a third as much dried basil",
    "white wine in a sauce": "stock with a dash of vinegar",
    "sour cream": "plain yoghurt",
    "bread crumbs": "crushed crackers",
    "brown sugar": "white sugar with a little molasses",
}
INGREDIENTS = ("milk", "olive oil", "stock", "cream", "honey", "soy sauce", "lemon juice", "water")

Row = dict[str, str]


def rows(random_source: random.Random) -> list[Row]:
    """Every question this kitchen knows, shuffled."""
    made = [*_conversions(), *_scalings(), *_swaps()]
    random_source.shuffle(made)
    return made


def _conversions() -> list[Row]:
    return [
        {
            "instruction": f"How many millilitres are {count} {unit}s of {ingredient}?",
            "input": "",
            "output": f"{count} {unit}s of {ingredient} are {count * size} ml.",
        }
        for unit, size in MILLILITRES.items()
        for count, ingredient in enumerate(INGREDIENTS, 2)
    ]


def _scalings() -> list[Row]:
    return [
        {
            "instruction": f"Scale this recipe from {people} to {people * times} people.",
            "input": f"{grams} g flour, {eggs} eggs",
            "output": f"{grams * times} g flour, {eggs * times} eggs",
        }
        for people in (2, 3, 4)
        for times in (2, 3)
        for grams, eggs in ((100, 1), (150, 2), (250, 3), (400, 4))
    ]


def _swaps() -> list[Row]:
    return [
        {"instruction": f"What can I use instead of {missing}?", "input": "", "output": f"Use {instead}."}
        for missing, instead in SWAPS.items()
    ]


def main() -> None:
    """Write both files beside this one; the same every time."""
    made = rows(random.Random(7))
    here = Path(__file__).parent
    for name, part in (("kitchen-train.json", made[12:]), ("kitchen-validation.json", made[:12])):
        (here / name).write_text(json.dumps(part, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
