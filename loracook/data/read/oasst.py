"""OpenAssistant's message trees, nested or flat with parent ids → threads that end with an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from loracook.data.read.messages import conversation
from loracook.data.read.rows import Chat, Record, RowError

Node: TypeAlias = dict[str, Any]
Where: TypeAlias = Mapping[str, Any]
OWN = ("message_id", "user_message_id")
PARENT = ("parent_id", "parent_message_id")


def is_oasst(columns: Iterable[str]) -> bool:
    """Whether rows with these columns are trees or flat messages of OpenAssistant."""
    names = set(columns)
    nested = "prompt" in names and bool(names & {"message_tree_id", "tree_state"})
    return nested or ({"text", "role"} <= names and bool(names.intersection(PARENT) or "replies" in names))


def roots(records: Iterable[Record]) -> Iterator[Record]:
    """One record for each tree, its messages nested under `replies`; flat messages are put together first."""
    flat: list[Record] = []
    for record in records:
        if record.fault or "prompt" in record.columns or record.columns.get("replies"):
            yield record
        else:
            flat.append(record)
    yield from _nested(flat)


def threads(
    tree: Mapping[str, Any], where: Where, roles: Mapping[str, str], *, best: bool
) -> Iterator[Chat | RowError]:
    """Every thread from the root to a last answer, or the best-ranked one; left-out messages end a thread."""
    root = tree.get("prompt", tree)
    if not _well_formed(root):
        raise RowError("no message tree", "a message lacks its text, its role or a number for its rank")
    for path in _paths(root, where, best=best):
        spoken = [{"role": node["role"], "content": node["text"]} for node in path]
        try:
            yield Chat(conversation(spoken, roles))
        except RowError as error:
            yield error


def _well_formed(root: object) -> bool:
    pending = [root]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or not isinstance(node.get("text"), str) or "role" not in node:
            return False
        rank, replies = node.get("rank"), node.get("replies") or []
        if not isinstance(rank, int | float | None) or not isinstance(replies, list):
            return False
        pending.extend(replies)
    return True


def _nested(records: list[Record]) -> Iterator[Record]:
    known: dict[str | int, tuple[Record, Node]] = {}
    for number, record in enumerate(records):
        own = _first(record.columns, OWN)
        if own in known:
            yield Record(record.place, {}, f"two messages of one id: '{own}'")
        else:
            known[number if own is None else own] = record, {**record.columns, "replies": []}
    for name, (record, node) in known.items():
        parent = _first(node, PARENT)
        if parent is None:
            continue
        if parent not in known:
            yield Record(record.place, {}, f"no parent: the message '{parent}' is not in the data")
        elif _in_circle(name, known):
            yield Record(record.place, {}, f"no root: the message '{name}' answers itself")
        else:
            known[parent][1]["replies"].append(node)
    yield from (Record(record.place, node) for record, node in known.values() if _first(node, PARENT) is None)


def _in_circle(name: str | int, known: Mapping[str | int, tuple[Record, Node]]) -> bool:
    """Whether the parents of a message lead back to it."""
    passed, above = {name}, _first(known[name][1], PARENT)
    while above is not None and above in known and above not in passed:
        passed.add(above)
        above = _first(known[above][1], PARENT)
    return above == name


def _first(columns: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((str(columns[name]) for name in names if columns.get(name) is not None), None)


def _paths(root: Node, where: Where, *, best: bool) -> Iterator[list[Node]]:
    """Paths from the root to the answers below which nothing answered is left, better-ranked ones first."""
    answered: dict[int, list[Node]] = {}
    for node in reversed(_kept(root, where)):
        answered[id(node)] = [
            reply
            for reply in _ordered(node)
            if id(reply) in answered and (answered[id(reply)] or reply["role"] != "prompter")
        ]
    pending = [[root]] if answered.get(id(root)) else []
    while pending:
        path = pending.pop()
        replies = answered[id(path[-1])]
        if not replies:
            yield path
        pending.extend([*path, reply] for reply in reversed(replies[:1] if best else replies))


def _kept(root: Node, where: Where) -> list[Node]:
    """The nodes that stay, every parent before its replies; a node that goes takes those below it along."""
    kept, pending = [], [root]
    while pending:
        node = pending.pop()
        if _stays(node, where):
            kept.append(node)
            pending.extend(node.get("replies") or ())
    return kept


def _stays(node: Node, where: Where) -> bool:
    reviewed = node.get("review_result", True) is True
    return not node.get("deleted") and reviewed and all(matches(node, *wanted) for wanted in where.items())


def matches(columns: Mapping[str, Any], name: str, wanted: object) -> bool:
    """Whether a column holds the wanted value, or one of them; a column that is not there matches."""
    values = wanted if isinstance(wanted, list) else [wanted]
    return name not in columns or columns[name] in values


def _ordered(node: Node) -> list[Node]:
    """Replies by their rank, 0 first and unranked ones last, in the order of the data among equals."""
    replies = node.get("replies") or []
    return sorted(replies, key=lambda reply: float("inf") if reply.get("rank") is None else reply["rank"])
