"""Two recipes compared by their effective values: what changed, from where, and what it changes in a run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loracook.errors import Path, dotted
from loracook.recipe.derived import batch, most_steps
from loracook.recipe.yaml_values import flow
from loracook.views.show import Stated, effective, origin_of

Values = dict[str, Any]
Setting = tuple[Any, str]
"""A value and its origin."""
SHAPE = ("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern")
NOT_LINEAR = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "rank_pattern",
    "trainable_token_indices",
    "use_bdlora",
)


def diff(before: Stated, after: Stated) -> str:
    """The changed values with both origins, then their effect on a run; one line when nothing changed."""
    lines = changes([before, after])
    if not lines:
        return "no difference in effective values"
    effects = [f"  {line}" for line in _effects(effective(before)[0], effective(after)[0])]
    return "\n".join([*lines, *(["effect on a run:", *effects] if effects else [])])


def changes(recipes: Sequence[Stated]) -> list[str]:
    """Each value that is not the same in all recipes, one after the other with its origin."""
    return [f"{key}: {' → '.join(map(_shown, settings))}" for key, settings in differing(recipes).items()]


def _shown(setting: Setting | None) -> str:
    return "not set" if setting is None else f"{flow(setting[0])} ({setting[1]})"


def differing(recipes: Sequence[Stated]) -> dict[str, list[Setting | None]]:
    """The keys that differ, with each recipe's value and its origin, None where it is not set."""
    sides = [(recipe, *effective(recipe)) for recipe in recipes]
    leaves = [dict(_leaves(values)) for _, values, _ in sides]
    found = {}
    for path in dict.fromkeys(path for each in leaves for path in each):
        settings = [
            (each[path], origin_of(recipe, path, upstream)) if path in each else None
            for each, (recipe, _, upstream) in zip(leaves, sides, strict=True)
        ]
        if any((one and one[:1]) != (settings[0] and settings[0][:1]) for one in settings):
            found[dotted(path)] = settings
    return found


def _leaves(values: Values, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is not a mapping; a list is one value."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _effects(before: Values, after: Values) -> Iterator[str]:
    for name, count in COUNTS.items():
        old, new = count(before), count(after)
        if old != new:
            yield f"{name}: {_number(old)} → {_number(new)}"
    factor = _adapter_growth(before, after)
    if factor not in (None, 1):
        yield f"trainable params: {factor:.4g} times as many"


def _adapter_growth(before: Values, after: Values) -> float | None:
    """The factor on the adapter's parameters where only the rank changed, None where more did."""
    old, new = before.get("lora"), after.get("lora")
    if not old or not new or before["base_model"]["name_or_path"] != after["base_model"]["name_or_path"]:
        return None
    if any(old.get(name) != new.get(name) for name in SHAPE) or any(map(_not_linear, (old, new))):
        return None
    return float(new["r"] / old["r"]) if "r" in old.keys() & new.keys() else None


def _not_linear(lora: Values) -> bool:
    return lora.get("bias", "none") != "none" or any(lora.get(name) for name in NOT_LINEAR)


def _tokens(values: Values) -> int:
    return batch(values) * int(values["train"]["max_length"])


def _number(value: int | None) -> str:
    return "depends on the data" if value is None else f"{value:,}"


COUNTS: dict[str, Callable[[Values], int | None]] = {
    "effective batch size (per device)": batch,
    "max tokens per step (per device)": _tokens,
    "max optimizer steps (one device)": most_steps,
}
