"""Write the kitchen orders of the quickstart: free English text in, one compact JSON ticket out."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 7
TRAIN_ROWS = 512
EVAL_ROWS = 60

# dish: its plural, what can be left out or doubled, how it can be made
MENU: dict[str, tuple[str, list[str], list[str]]] = {
    "pad thai": ("pad thai", ["peanuts", "egg", "lime"], ["spicy", "mild"]),
    "burger": ("burgers", ["onions", "cheese", "bacon"], ["spicy", "large"]),
    "pizza": ("pizzas", ["olives", "cheese", "basil"], ["large", "small"]),
    "salad": ("salads", ["croutons", "olives", "onions"], ["small", "large"]),
    "tomato soup": ("tomato soups", ["cream", "basil", "croutons"], ["small", "spicy"]),
    "taco": ("tacos", ["cheese", "lime", "onions"], ["spicy", "mild"]),
    "fries": ("fries", ["salt", "mayo", "ketchup"], ["small", "large"]),
    "sandwich": ("sandwiches", ["mayo", "bacon", "egg"], ["toasted", "small"]),
    "ramen": ("ramen", ["egg", "onions", "lime"], ["spicy", "large"]),
    "lasagna": ("lasagnas", ["cheese", "basil"], ["small", "large"]),
    "brownie": ("brownies", ["cream", "nuts"], ["warm"]),
    "iced tea": ("iced teas", ["ice", "lemon", "sugar"], ["small", "large"]),
    "lemonade": ("lemonades", ["ice", "mint", "sugar"], ["small", "large"]),
    "coffee": ("coffees", ["milk", "sugar"], ["small", "large"]),
}
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WISHES = {"no": ["without {}", "with no {}", "no {}", "hold the {}"], "extra": ["with extra {}", "extra {}"]}
GREETINGS = ["Hi, ", "Hello, ", "Hey, ", "Good evening, ", "OK, "]
AT_TABLE = [
    "Table {t}: {items}.",
    "New order for table {t}: {items}, please.",
    "{greet}table {t} would like {items}.",
    "{greet}table {t} wants {items}, please.",
    "{greet}can I get {items} for table {t}?",
    "{greet}could we have {items} at table {t}, please?",
    "{greet}{items} for table {t}, please.",
    "{greet}we are at table {t} and we'd like {items}.",
    "{greet}I'll have {items}, I'm at table {t}.",
    "{greet}please bring {items} to table {t}.",
    "{greet}for table {t}, make that {items}.",
]
TAKEAWAY = [
    "Takeaway: {items}.",
    "{greet}can I get {items} to go?",
    "{greet}could I have {items} to take away, please?",
    "{greet}{items} to go, please.",
    "{greet}I'd like to order {items} for takeaway.",
    "{greet}make that {items} to go.",
]
PLAIN = {frozenset({(dish, "", "", "")}) for dish in MENU}


@dataclass(frozen=True)
class Item:
    """One line of a ticket."""

    count: int
    dish: str
    style: str
    wish: str
    part: str

    def line(self) -> str:
        """Return the line as the kitchen reads it."""
        mods = [self.style, f"{self.wish} {self.part}".strip()]
        return ", ".join([f"{self.count} {self.dish}", *filter(None, mods)])


@dataclass(frozen=True)
class Order:
    """What a guest says, the ticket for it, and the dishes with their mods."""

    text: str
    ticket: str
    wanted: frozenset[tuple[str, str, str, str]]


def draw_item(rng: random.Random, dish: str) -> Item:
    """Draw one line with a random count and up to two mods."""
    _, parts, styles = MENU[dish]
    style = rng.choice(styles) if rng.random() < 0.36 else ""
    part = rng.choice(parts) if rng.random() < 0.5 else ""
    count = rng.choices([1, 2, 3, 4, 5, 6], [36, 28, 14, 10, 6, 6])[0]
    return Item(count, dish, style, rng.choice(["no", "no", "extra"]) if part else "", part)


def number(value: int, digits: bool) -> str:
    """Return a number as a waiter types it, or as a guest says it."""
    return str(value) if digits or value >= len(WORDS) else WORDS[value]


def say_item(rng: random.Random, item: Item, digits: bool) -> str:
    """Put one line in words: the count, the dish and its mods."""
    count = number(item.count, digits)
    name = " ".join(filter(None, [item.style, item.dish if item.count == 1 else MENU[item.dish][0]]))
    if item.count == 1 and not digits and rng.random() < 0.6 and item.dish != "fries":
        count = "an" if name[0] in "aeiou" else "a"
    elif item.count == 2 and not digits and rng.random() < 0.15:
        count = "a couple of"
    wish = " " + rng.choice(WISHES[item.wish]).format(item.part) if item.part else ""
    return f"{count} {name}{wish}"


def draw_order(rng: random.Random) -> Order:
    """Draw one guest's order: what is on the ticket, and one way to say it."""
    dishes = rng.sample(list(MENU), rng.choices([1, 2, 3], [42, 48, 10])[0])
    items = [draw_item(rng, dish) for dish in dishes]
    table = rng.randint(1, 20) if rng.random() < 0.75 else None
    digits = rng.random() < 0.4
    said = [say_item(rng, item, digits) for item in items]
    last = rng.choice([" and ", ", and "]) + said.pop() if len(said) > 1 else ""
    text = rng.choice(TAKEAWAY if table is None else AT_TABLE).format(
        greet=rng.choice(GREETINGS) if rng.random() < 0.4 else "",
        items=", ".join(said) + last,
        t=number(table or 0, digits or rng.random() < 0.6),
    )
    text = text.lower().rstrip(".?") if rng.random() < 0.2 else text[0].upper() + text[1:]
    where: dict[str, Any] = {"takeaway": True} if table is None else {"table": table}
    ticket = json.dumps(where | {"items": [item.line() for item in items]}, separators=(",", ":"))
    return Order(text, ticket, frozenset((item.dish, item.style, item.wish, item.part) for item in items))


def write_rows(path: Path, orders: list[Order]) -> None:
    """Write one JSON object a line."""
    rows = (json.dumps({"order": order.text, "ticket": order.ticket}) + "\n" for order in orders)
    path.write_text("".join(rows), encoding="utf-8", newline="\n")


def main() -> None:
    """Write both files; no held-out set of dishes and mods is in training, at any table, count or wording."""
    rng = random.Random(SEED)
    held_out: dict[Any, Order] = {}
    while len(held_out) < EVAL_ROWS:
        order = draw_order(rng)
        if order.wanted not in PLAIN:
            held_out.setdefault(order.wanted, order)
    train: dict[str, Order] = {}
    while len(train) < TRAIN_ROWS:
        order = draw_order(rng)
        if order.wanted not in held_out:
            train.setdefault(order.text, order)
    folder = Path(__file__).resolve().parent
    write_rows(folder / "orders-train.jsonl", list(train.values()))
    write_rows(folder / "orders-eval.jsonl", list(held_out.values()))


if __name__ == "__main__":
    main()
