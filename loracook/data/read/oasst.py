"""OpenAssistant message trees, nested or flat with parent ids → threads that end with an answer."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from loracook.data.read.message_keys import is_empty
from loracook.data.read.messages import conversation
from loracook.data.read.rows import Chat, Record, RowError

Node: TypeAlias = dict[str, Any]
Where: TypeAlias = Mapping[str, Any]
ID_KEYS = ("message_id", "user_message_id")
PARENT_KEYS = ("parent_id", "parent_message_id")
COLUMNS = (
    *("prompt", "message_tree_id", "tree_state", *ID_KEYS, *PARENT_KEYS),
    *("text", "role", "replies", "rank", "deleted", "review_result"),
)
"""The columns of trees and messages that are read."""


def is_oasst(columns: Iterable[str]) -> bool:
    """Whether rows with these columns are OpenAssistant trees or flat messages."""
    names = set(columns)
    nested = "prompt" in names and bool(names & {"message_tree_id", "tree_state"})
    return nested or ({"text", "role"} <= names and bool(names & {*PARENT_KEYS, "replies"}))


def trees(records: Iterable[Record]) -> Iterator[Record]:
    """One record for each tree, its messages nested under `replies`; flat messages are assembled first."""
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
    """Every thread from the root to a final answer, or the best-ranked; filtered messages end a thread."""
    root = tree.get("prompt", tree)
    if not _well_formed(root):
        raise RowError("no message tree", "a message has no text, no role or no numeric rank")
    known = {*COLUMNS, *where, *(tree if root is tree else ())}  # the columns of a flat row are named as such
    for path in _paths(root, where, best=best):
        messages = [{"role": node["role"], "content": node["text"]} for node in path]
        try:
            yield Chat(conversation(messages, roles), unread=frozenset(_unread(path, known)))
        except RowError as error:
            yield error


def _unread(path: list[Node], known: set[str]) -> Iterator[str]:
    """The keys of messages that have a value and are not read."""
    return (key for node in path for key, value in node.items() if key not in known and not is_empty(value))


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
    """The trees that flat messages form by their parent ids."""
    by_id: dict[str | int, tuple[Record, Node]] = {}
    for number, record in enumerate(records):
        message_id = _first(record.columns, ID_KEYS)
        if message_id in by_id:
            yield Record(record.place, {}, f"duplicate message id: '{message_id}'")
        else:
            by_id[number if message_id is None else message_id] = record, {**record.columns, "replies": []}
    cyclic = _in_cycles(by_id)
    for name, (record, node) in by_id.items():
        parent = _first(node, PARENT_KEYS)
        if parent is None:
            continue
        if parent not in by_id:
            yield Record(record.place, {}, f"missing parent: message '{parent}' is not in the data")
        elif name in cyclic:
            yield Record(record.place, {}, f"no root: the parents of message '{name}' form a cycle")
        else:
            by_id[parent][1]["replies"].append(node)
    yield from (
        Record(record.place, node) for record, node in by_id.values() if _first(node, PARENT_KEYS) is None
    )


def _in_cycles(by_id: Mapping[str | int, tuple[Record, Node]]) -> set[str | int]:
    """The messages whose parents lead back to them; each message is walked through once."""
    cyclic, walked = set[str | int](), set[str | int]()
    for name in by_id:
        path: dict[str | int, int] = {}
        at: str | int | None = name
        while at is not None and at in by_id and at not in walked:
            walked.add(at)
            path[at] = len(path)
            at = _first(by_id[at][1], PARENT_KEYS)
        if at in path:
            cyclic.update(list(path)[path[at] :])
    return cyclic


def _first(columns: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((str(columns[name]) for name in names if columns.get(name) is not None), None)


def _paths(root: Node, where: Where, *, best: bool) -> Iterator[list[Node]]:
    """Paths from the root to each final answer, better-ranked ones first; trailing questions are dropped."""
    answered: dict[int, list[Node]] = {}
    for node in reversed(_visible(root, where)):
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


def _visible(root: Node, where: Where) -> list[Node]:
    """The nodes that are used, each parent before its replies; a filtered node removes its replies too."""
    visible, pending = [], [root]
    while pending:
        node = pending.pop()
        reviewed = node.get("review_result", True) is True and not node.get("deleted")
        if reviewed and all(matches(node, *wanted) for wanted in where.items()):
            visible.append(node)
            pending.extend(node.get("replies") or ())
    return visible


def matches(columns: Mapping[str, Any], name: str, wanted: object) -> bool:
    """Whether a column has the wanted value, or one of them; a missing column matches."""
    values = wanted if isinstance(wanted, list) else [wanted]
    return name not in columns or columns[name] in values


def _ordered(node: Node) -> list[Node]:
    """Replies by rank, 0 first and unranked ones last; equal ranks stay in the order of the data."""
    replies = node.get("replies") or []
    return sorted(replies, key=lambda reply: float("inf") if reply.get("rank") is None else reply["rank"])
