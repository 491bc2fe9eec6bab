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
        message = "no data is given; set 'path: organization/name', or list 'sources:'"
        yield Problem(("dataset",), message)
    if "path" in dataset and "sources" in dataset:
        yield Problem(
            ("dataset", "path"), "conflicts with 'sources'; make it one of them, or remove one of the two"
        )


def source_beside_sources(data: Data) -> Iterator[Problem]:
    """With several sources, each has its own settings."""
    dataset = data["dataset"]
    written = [name for name, default in WITH_DEFAULT.items() if dataset[name] != default]
    for name in (*OF_A_SOURCE, *written):
        if name in dataset and "sources" in dataset and "path" not in dataset:
            yield Problem(("dataset", name), "applies to a single source; set it in each entry of 'sources:'")


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
                yield Problem((*path, name), "has no effect on local files; remove it")


def mix_of_one(data: Data) -> Iterator[Problem]:
    """Mixing requires at least two sources."""
    dataset = data["dataset"]
    if dataset["mix"] == "interleave" and len(dataset.get("sources", ())) < 2:
        yield Problem(("dataset", "mix"), "requires several sources; add one or remove this")


def unread_of_format(data: Data) -> Iterator[Problem]:
    """Some keys apply to some formats only."""
    for path, source in sources(data):
        kind = source["format"]
        if kind not in ("auto", "oasst") and source["threads"] != "all":
            yield Problem((*path, "threads"), f"requires the format 'oasst', not '{kind}'; remove it")
        if kind not in ("auto", *CHATS) and "map_roles" in source:
            yield Problem((*path, "map_roles"), f"the format '{kind}' has no roles; remove it")


def half_a_template(data: Data) -> Iterator[Problem]:
    """A prompt requires its completion, and the other way round."""
    template = data["template"]
    for here, missing in (("prompt", "completion"), ("completion", "prompt")):
        if here in template and missing not in template:
            message = f"requires '{missing}'; set it too, or use messages"
            yield Problem(("template", here), message)
    if "messages" in template and ("prompt" in template or "completion" in template):
        message = "conflicts with prompt and completion; remove one of the two"
        yield Problem(("template", "messages"), message)


def template_and_format(data: Data) -> Iterator[Problem]:
    """A row template reads plain columns, and plain columns require one."""
    written = [name for name in ("messages", "prompt", "completion") if name in data["template"]]
    for path, source in sources(data):
        kind = source["format"]
        if kind == "columns" and not written:
            message = "requires a row template; set template.prompt and template.completion"
            yield Problem((*path, "format"), message)
        if kind not in ("auto", "columns") and written:
            message = f"conflicts with template.{written[0]}; set 'columns', or remove the row template"
            yield Problem((*path, "format"), message)


def template_without_columns(data: Data) -> Iterator[Problem]:
    """A row template without a column makes every row the same."""
    template = data["template"]
    texts = [template[name] for name in ("prompt", "completion") if name in template]
    texts += [message["content"] for message in template.get("messages", ())]
    if texts and not any(map(FIELD.search, texts)):
        name = "messages" if "messages" in template else "prompt"
        message = "contains no column, so all rows would be the same; insert one as '{column}'"
        yield Problem(("template", name), message)


def conversation_without_answer(data: Data) -> Iterator[Problem]:
    """There must be something to train."""
    messages = data["template"].get("messages")
    if messages and messages[-1]["role"] != "assistant":
        path = ("template", "messages", len(messages) - 1, "role")
        yield Problem(path, "the last message is the one that is trained; set 'role: assistant'")


def loss_and_format(data: Data) -> Iterator[Problem]:
    """Plain text has no turns and no completion."""
    template = data["template"]
    loss = template.get("loss", "all")
    if loss == "all":
        return
    if all(source["format"] == "text" for _, source in sources(data)):
        yield Problem(("template", "loss"), f"plain text has no {_part(loss)}; set 'all' or remove it")
    elif loss in ("assistant", "last_turn") and template.get("chat_template") == "none":
        message = f"{_part(loss)}s require a chat template; set 'completion' or 'all', or remove it"
        yield Problem(("template", "loss"), message)


def chats_without_template(data: Data) -> Iterator[Problem]:
    """Conversations require a chat template."""
    for path, source in sources(data):
        if source["format"] in CHATS and data["template"].get("chat_template") == "none":
            message = f"'{source['format']}' rows require a chat template; remove 'chat_template: none'"
            yield Problem((*path, "format"), message)


def system_without_turns(data: Data) -> Iterator[Problem]:
    """A system prompt opens a conversation."""
    template = data["template"]
    textual = all(source["format"] == "text" for _, source in sources(data))
    if "system" in template and (textual or template.get("chat_template") == "none"):
        yield Problem(("template", "system"), "has no effect without conversations; remove it")


def two_kinds_of_held_out(data: Data) -> Iterator[Problem]:
    """Evaluation rows are held out of the training rows, or come from their own source."""
    held = data["dataset"].get("eval", {})
    if "fraction" not in held:
        return
    for name in ("rows", *OWN_ROWS):
        if name in held:
            yield Problem(("dataset", "eval", name), "conflicts with 'fraction'; remove one of the two")


def evaluation_of_nothing(data: Data) -> Iterator[Problem]:
    """A name or revision alone does not select rows."""
    held = data["dataset"].get("eval")
    if held and not set(held) & {"split", "path", "data_files", "fraction", "rows"}:
        yield Problem(
            ("dataset", "eval"), "names no evaluation rows; set 'split', 'path', 'fraction' or 'rows'"
        )


def evaluation_of_training(data: Data) -> Iterator[Problem]:
    """An evaluation on training rows proves nothing."""
    held = data["dataset"].get("eval", {})
    same = {name: value for name, value in held.items() if name in OWN_ROWS}
    if same and any(same == {name: source.get(name) for name in same} for _, source in sources(data)):
        path = ("dataset", "eval", next(iter(same)))
        yield Problem(path, "these are the training rows; use others, or set 'fraction: 0.05' instead")


def nothing_left_to_train(data: Data) -> Iterator[Problem]:
    """Holding rows out must leave some to train on."""
    dataset = data["dataset"]
    held, rows = dataset.get("eval", {}), most_rows(data)
    if set(held) == {"rows"} and rows is not None and held["rows"] >= rows:
        message = f"holding out {held['rows']} of {rows} rows leaves none to train on; hold out fewer"
        yield Problem(("dataset", "eval", "rows"), message)


def held_out_of_a_stream(data: Data) -> Iterator[Problem]:
    """A fraction requires a known number of rows."""
    dataset = data["dataset"]
    if dataset.get("streaming") and "fraction" in dataset.get("eval", {}):
        path = ("dataset", "eval", "fraction")
        yield Problem(path, "conflicts with streaming, since a stream has no length; set 'rows' or 'split'")


def _places(data: Data) -> Iterator[tuple[Path, Data]]:
    """Every source, and the evaluation rows with the path that they inherit."""
    yield from sources(data)
    dataset = data["dataset"]
    held = dataset.get("eval", {})
    first = dataset if "path" in dataset else next(iter(dataset.get("sources", ())), {})
    inherited = {name: first[name] for name in ("path", "data_files") if name in first and "path" not in held}
    yield ("dataset", "eval"), inherited | held


def _part(loss: str) -> str:
    return {"assistant": "assistant's turn", "last_turn": "last turn", "completion": "completion"}[loss]
