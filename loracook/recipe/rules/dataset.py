"""Rules of where rows come from and how they become text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from loracook.errors import Path, Problem
from loracook.recipe.derived import OWN_ROWS, Data, most_rows, sources
from loracook.recipe.locations import is_local

OF_A_SOURCE = ("name", "data_files", "revision", "columns", "map_roles", "where", "rows")
WITH_DEFAULT = {"split": "train", "format": "auto", "threads": "all"}
CHATS = ("messages", "sharegpt", "oasst")
FIELD = re.compile(r"\{[^{}\n]+\}")


def no_rows(data: Data) -> Iterator[Problem]:
    """Rows come from one source or from several."""
    dataset = data["dataset"]
    if "path" not in dataset and "sources" not in dataset:
        message = "there are no rows; write 'path: organization/name', or several 'sources:'"
        yield Problem(("dataset",), message)
    if "path" in dataset and "sources" in dataset:
        yield Problem(("dataset", "path"), "stands beside 'sources'; write it as one of them, or remove one")


def source_beside_sources(data: Data) -> Iterator[Problem]:
    """With several sources each says for itself how it is read."""
    dataset = data["dataset"]
    written = [name for name, default in WITH_DEFAULT.items() if dataset[name] != default]
    for name in (*OF_A_SOURCE, *written):
        if name in dataset and "sources" in dataset and "path" not in dataset:
            yield Problem(("dataset", name), "belongs to one source; write it in each entry of 'sources:'")


def hub_keys_of_local_rows(data: Data) -> Iterator[Problem]:
    """Local files have no splits, configurations or revisions."""
    for path, source in _places(data):
        if not is_local(source):
            continue
        if source.get("split", "train") != "train":
            message = "local files have no splits; remove it, and name the file in path or data_files"
            yield Problem((*path, "split"), message)
        for name in ("name", "revision"):
            if name in source:
                yield Problem((*path, name), "means nothing for local files; remove it")


def mix_of_one(data: Data) -> Iterator[Problem]:
    """There is nothing to mix with."""
    dataset = data["dataset"]
    if dataset["mix"] == "interleave" and len(dataset.get("sources", ())) < 2:
        yield Problem(("dataset", "mix"), "there is one source only; write a second one or remove this")


def unread_of_format(data: Data) -> Iterator[Problem]:
    """Some keys are read in some formats only."""
    for path, source in sources(data):
        kind = source["format"]
        if kind not in ("auto", "oasst") and source["threads"] != "all":
            yield Problem((*path, "threads"), f"read in the format 'oasst' only, not in '{kind}'; remove it")
        if kind not in ("auto", *CHATS) and "map_roles" in source:
            yield Problem((*path, "map_roles"), f"there are no roles in the format '{kind}'; remove it")


def half_a_template(data: Data) -> Iterator[Problem]:
    """A prompt needs its completion, and the other way round."""
    template = data["template"]
    for here, missing in (("prompt", "completion"), ("completion", "prompt")):
        if here in template and missing not in template:
            message = f"goes with a {missing}; write '{missing}:' too, or use messages"
            yield Problem(("template", here), message)
    if "messages" in template and ("prompt" in template or "completion" in template):
        message = "rows are messages or prompt and completion; remove one of the two"
        yield Problem(("template", "messages"), message)


def template_and_format(data: Data) -> Iterator[Problem]:
    """A row template reads plain columns, and plain columns need one."""
    written = [name for name in ("messages", "prompt", "completion") if name in data["template"]]
    for path, source in sources(data):
        kind = source["format"]
        if kind == "columns" and not written:
            message = "plain columns need a row template; write template.prompt and template.completion"
            yield Problem((*path, "format"), message)
        if kind not in ("auto", "columns") and written:
            message = f"'{kind}' rows need no row template; write 'columns', or remove template.{written[0]}"
            yield Problem((*path, "format"), message)


def template_without_columns(data: Data) -> Iterator[Problem]:
    """A row template without a column makes every row the same."""
    template = data["template"]
    texts = [template[name] for name in ("prompt", "completion") if name in template]
    texts += [message["content"] for message in template.get("messages", ())]
    if texts and not any(map(FIELD.search, texts)):
        name = "messages" if "messages" in template else "prompt"
        message = "names no column, so all rows are the same; write '{column}' where it goes"
        yield Problem(("template", name), message)


def conversation_without_answer(data: Data) -> Iterator[Problem]:
    """There must be something to learn."""
    messages = data["template"].get("messages")
    if messages and messages[-1]["role"] != "assistant":
        path = ("template", "messages", len(messages) - 1, "role")
        yield Problem(path, "the last message is what is learned; write it with 'role: assistant'")


def loss_and_format(data: Data) -> Iterator[Problem]:
    """Plain text has no turns and no completion."""
    template = data["template"]
    loss = template.get("loss", "all")
    if loss == "all":
        return
    if all(source["format"] == "text" for _, source in sources(data)):
        yield Problem(("template", "loss"), f"plain text has no {_part(loss)}; write 'all' or remove it")
    elif loss in ("assistant", "last_turn") and template.get("chat_template") == "none":
        message = f"without a chat template there is no {_part(loss)}; write 'completion', 'all' or remove it"
        yield Problem(("template", "loss"), message)


def chats_without_template(data: Data) -> Iterator[Problem]:
    """Turns are put together by a chat template."""
    for path, source in sources(data):
        if source["format"] in CHATS and data["template"].get("chat_template") == "none":
            message = f"'{source['format']}' rows need a chat template; remove 'chat_template: none'"
            yield Problem((*path, "format"), message)


def system_without_turns(data: Data) -> Iterator[Problem]:
    """A system text opens a conversation."""
    template = data["template"]
    textual = all(source["format"] == "text" for _, source in sources(data))
    if "system" in template and (textual or template.get("chat_template") == "none"):
        yield Problem(("template", "system"), "there is no conversation to open; remove it")


def two_kinds_of_held_out(data: Data) -> Iterator[Problem]:
    """Evaluation rows are held out of the training rows, or are rows of their own."""
    held = data["dataset"].get("eval", {})
    if "fraction" not in held:
        return
    for name in ("rows", *OWN_ROWS):
        if name in held:
            yield Problem(("dataset", "eval", name), "'fraction' says which rows; remove one of the two")


def evaluation_of_nothing(data: Data) -> Iterator[Problem]:
    """A name or revision alone names no rows."""
    held = data["dataset"].get("eval")
    if held and not set(held) & {"split", "path", "data_files", "fraction", "rows"}:
        yield Problem(("dataset", "eval"), "names no rows; write 'split:', 'path:', 'fraction:' or 'rows:'")


def evaluation_of_training(data: Data) -> Iterator[Problem]:
    """Rows that are trained on prove nothing."""
    held = data["dataset"].get("eval", {})
    same = {name: value for name, value in held.items() if name in OWN_ROWS}
    if same and any(same == {name: source.get(name) for name in same} for _, source in sources(data)):
        path = ("dataset", "eval", next(iter(same)))
        yield Problem(path, "these are the training rows; write others, or 'fraction: 0.05' instead")


def nothing_left_to_train(data: Data) -> Iterator[Problem]:
    """Rows that are held out must leave some."""
    dataset = data["dataset"]
    held, rows = dataset.get("eval", {}), most_rows(data)
    if set(held) == {"rows"} and rows is not None and held["rows"] >= rows:
        message = f"holding out {held['rows']} of {rows} rows leaves none to train on; write fewer"
        yield Problem(("dataset", "eval", "rows"), message)


def held_out_of_a_stream(data: Data) -> Iterator[Problem]:
    """A stream has no end to take a share of."""
    dataset = data["dataset"]
    if dataset.get("streaming") and "fraction" in dataset.get("eval", {}):
        path = ("dataset", "eval", "fraction")
        yield Problem(path, "a stream has no length to take a share of; write 'rows:' or 'split:'")


def _places(data: Data) -> Iterator[tuple[Path, Data]]:
    """What is said of where rows lie: of every source, and of evaluation rows with the path they go by."""
    yield from sources(data)
    dataset = data["dataset"]
    held = dataset.get("eval", {})
    first = dataset if "path" in dataset else next(iter(dataset.get("sources", ())), {})
    inherited = {name: first[name] for name in ("path", "data_files") if name in first and "path" not in held}
    yield ("dataset", "eval"), inherited | held


def _part(loss: str) -> str:
    return {"assistant": "assistant's turn", "last_turn": "last turn", "completion": "completion"}[loss]
