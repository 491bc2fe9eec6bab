"""Warnings about prepared rows: flaws, exceeded limits, skipped rows."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from loracook.data.read.formats import named
from loracook.errors import Problem
from loracook.recipe.recipe import Recipe


class Flaw(NamedTuple):
    """A kind of flawed row: what such rows do, as a predicate of "rows", and what to do about them."""

    predicate: str
    advice: str
    rows: str = "training rows"


FLAWS = {
    "truncated": Flaw("exceed train.max_length", "raise it or remove them"),
    "missing_eos": Flaw(
        "have no end-of-turn (EOS) token in the loss",
        "raise train.max_length, set tokenizer.eos_token or fix {% generation %}",
    ),
    "fully_masked": Flaw(
        "have no token in the loss and are dropped", "raise train.max_length or remove them"
    ),
    "duplicates": Flaw("repeat an earlier row", "remove the duplicates"),
    "eval_leak": Flaw("are also training rows", "remove them from the training data", "evaluation rows"),
}


def over_limits(statistics: Mapping[str, Any], recipe: Recipe) -> list[Problem]:
    """Two problems for each of the recipe's limits that is exceeded, the second naming the longest rows."""
    return [
        recipe.problem(("dataset", "limits", name), message)
        for name, limit in recipe["dataset"]["limits"].items()
        if statistics["flaws"][name]["share"] > limit
        for message in _over_limit(name, statistics["flaws"][name], limit)
    ]


def notes(statistics: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each thing that was detected, dropped or is flawed."""
    if statistics["sample"]:
        yield f"rows are streamed; the statistics cover the first {statistics['rows']['train']}"
    if part := statistics["part"]:
        some = f"{part['rows']} of {part['of']} rows are tokenized, those that train.max_steps trains"
        yield f"{some}; the statistics cover these, loracook preview shows all"
    for source in statistics["sources"]:
        yield from _source_notes(source)
    for name, (predicate, _, rows) in FLAWS.items():
        flaw = statistics["flaws"][name]
        if flaw["rows"]:
            yield f"{flaw['rows']} {rows} ({flaw['share']:.1%}) {predicate}"
    yield from _special_token_notes(statistics["special_tokens"])
    if count := statistics["lost_reasoning"]:
        lost = f"{count} training rows have reasoning that the chat template drops"
        yield f"{lost}; try template.loss: assistant"
    if count := statistics["evaluation_dropped"]:
        yield f"{count} evaluation rows have no token in the loss within train.max_length and are dropped"


def _over_limit(name: str, flaw: Mapping[str, Any], limit: float) -> Iterator[str]:
    predicate, advice, rows = FLAWS[name]
    yield f"{flaw['rows']} {rows} ({flaw['share']:.1%}, limit {limit:.1%}) {predicate}; {advice}"
    longest = (f"row {row['row']} of {row['file']} ({row['tokens']})" for row in flaw["worst"])
    yield "longest (tokens): " + ", ".join(longest)


def _special_token_notes(counts: Mapping[str, Any]) -> Iterator[str]:
    for token, rows in counts["added"].items():
        yield f"'{token}' is added to the end of {rows} training rows"
    for token, rows in counts["dropped"].items():
        yield f"'{token}' of {rows} training rows is dropped, since the tokenizer or chat template adds it"
    for token, within in counts["within"].items():
        where = f"{within['rows']} training rows contain the control token '{token}' in their own text"
        effect = "; inside an answer it trains the model to stop there" if within["ends"] else ""
        yield f"{where}{effect}, first: {within['first']}"


def _source_notes(source: Mapping[str, Any]) -> Iterator[str]:
    path = source["path"]
    if source["detected"]:
        yield f"{path}: detected format {source['format']} ({source['detected']})"
    for what, unread in (
        ("column", source["unread_columns"]),
        ("message key", source["unread_keys"]),
        ("chat template argument", source["unread_template_kwargs"]),
    ):
        if unread:
            verb = "is" if len(unread) == 1 else "are"
            yield f"{path}: {named(what, sorted(unread))} {verb} not read"
    if around := source["unread_around"]:
        verb = "is" if len(around) == 1 else "are"
        yield f"{path}: {named('key', sorted(around))} around the rows {verb} not read"
    for reason, skipped in source["skipped"].items():
        yield f"{skipped['rows']} rows of {path} skipped ({reason}), first: {skipped['first'][0]}"
    if source["placeholders"]["rows"]:
        rows, first = source["placeholders"]["rows"], source["placeholders"]["first"][0]
        yield f"{rows} rows of {path} contain unfilled placeholders like {{{{name}}}}, first: {first}"
