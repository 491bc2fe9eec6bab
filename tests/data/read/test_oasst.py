"""OpenAssistant's trees become threads that end with an answer."""

from __future__ import annotations

from typing import Any

from loracook.data.read.formats import ReadOptions, rows
from loracook.data.read.oasst import trees
from loracook.data.read.rows import Chat, Place, Record, RowError


def node(text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A message by whose text's first letter one knows who says it: q is the prompter's."""
    role = "prompter" if text.startswith("q") else "assistant"
    facts = {"lang": "en", "deleted": False, "review_result": True, "rank": None}
    return {"message_id": text, "text": text, "role": role, "replies": list(replies), **facts, **more}


TREE = node(
    "q",
    node("a1", node("q1", node("a11", node("q2")), node("a12", rank=0)), node("q3"), rank=1),
    node("a2", rank=0),
    node("a3", node("q4", node("a31")), rank=2, deleted=True),
    node("a4", rank=3, review_result=None),
    node("a5", rank=4, lang="de"),
)


def flat(message: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    """The messages of a tree in a row, each with its parent's id."""
    own = {key: value for key, value in message.items() if key != "replies"} | {"parent_id": parent}
    return [own, *(below for reply in message["replies"] for below in flat(reply, message["message_id"]))]


def threads(records: list[dict[str, Any]], **shape: Any) -> list[str]:
    """The threads of records as the texts of their messages."""
    found = trees(Record(Place("trees.jsonl", number), record) for number, record in enumerate(records, 1))
    shown = []
    for record in found:
        for row in rows(record.columns, ReadOptions("oasst", **shape)):
            assert isinstance(row, Chat)
            shown.append(" ".join(message["content"] for message in row.messages))
    return shown


def test_every_thread_ends_with_an_answer_and_better_ranked_ones_come_first() -> None:
    assert threads([{"message_tree_id": "q", "prompt": TREE}]) == [
        "q a2",
        "q a1 q1 a12",
        "q a1 q1 a11",
        "q a5",
    ]


def test_the_best_thread_follows_the_best_rank() -> None:
    assert threads([{"message_tree_id": "q", "prompt": TREE}], best=True) == ["q a2"]


def test_a_filter_goes_by_message_or_by_tree() -> None:
    tree = {"message_tree_id": "q", "tree_state": "ready", "prompt": TREE}
    assert threads([tree], where={"lang": "en"}) == ["q a2", "q a1 q1 a12", "q a1 q1 a11"]
    assert threads([tree], where={"lang": ["de"]}) == []
    assert threads([tree], where={"tree_state": "halted"}) == []


def test_flat_messages_are_put_together_in_any_order() -> None:
    nested = threads([TREE])
    assert sorted(threads(flat(TREE))) == sorted(threads(flat(TREE)[::-1])) == sorted(nested)


def test_a_missing_parent_is_reported_and_a_cut_question_has_no_thread() -> None:
    lost = flat(TREE, "nowhere")
    found = list(trees(Record(Place("trees.jsonl", 1), record) for record in lost))
    assert [record.fault for record in found] == ["missing parent: message 'nowhere' is not in the data"]
    assert threads([node("q", node("a", deleted=True))]) == []


def test_cycles_and_duplicate_ids_are_reported() -> None:
    messages = [
        {"message_id": "q", "text": "q", "role": "prompter", "parent_id": None},
        {"message_id": "a", "text": "a", "role": "assistant", "parent_id": "q"},
        {"message_id": "a", "text": "again", "role": "assistant", "parent_id": "q"},
        {"message_id": "b", "text": "b", "role": "assistant", "parent_id": "b"},
        {"message_id": "c", "text": "c", "role": "prompter", "parent_id": "d"},
        {"message_id": "d", "text": "d", "role": "assistant", "parent_id": "c"},
    ]
    found = list(trees(Record(Place("t.jsonl", number), row) for number, row in enumerate(messages, 1)))
    assert [(record.place.number, record.fault) for record in found] == [
        (3, "duplicate message id: 'a'"),
        (4, "no root: the parents of message 'b' form a cycle"),
        (5, "no root: the parents of message 'c' form a cycle"),
        (6, "no root: the parents of message 'd' form a cycle"),
        (1, ""),
    ]


def test_one_bad_thread_leaves_the_others() -> None:
    tree = node("q", node("a1", node("a2"), rank=0), node("a3", rank=1))
    found = list(rows(tree, ReadOptions("oasst")))
    assert [type(row) for row in found] == [RowError, Chat]
    assert str(found[0]) == "repeated role: messages 2 and 3 are both assistant"


def test_keys_of_nested_messages_are_named_as_not_read() -> None:
    tree = node("q", node("a", labels={"quality": 1}, weight=0, emojis={}))
    (nested,) = rows({"message_tree_id": "q", "prompt": tree}, ReadOptions("oasst", where={"lang": "en"}))
    (own,) = rows(tree, ReadOptions("oasst"))
    assert isinstance(nested, Chat)
    assert isinstance(own, Chat)
    assert nested.unread == own.unread == {"labels", "weight"}
    (unfiltered,) = rows({"message_tree_id": "q", "prompt": tree}, ReadOptions("oasst"))
    assert isinstance(unfiltered, Chat)
    assert unfiltered.unread == {"labels", "weight", "lang"}
