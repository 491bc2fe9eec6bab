"""Rules for the dataset and template sections."""

import re
from collections.abc import Iterator

from loracook.errors import Path, Problem
from loracook.recipe.derived import OWN_ROWS, Data, most_rows, sources
from loracook.recipe.locations import NOT_FOR_LOCAL_FILES, is_local

OF_A_SOURCE = ("name", "data_files", "revision", "columns", "map_roles", "where", "rows")
WITH_DEFAULT = {"split": "train", "format": "auto", "threads": "all"}
CHATS = ("messages", "sharegpt", "oasst")
FIELD = re.compile(r"\{[^{}\n]+\}")


def no_rows(data: Data) -> Iterator[Problem]:
    """Rows come from one source or from several."""
    dataset = data["dataset"]
    if "path" not in dataset and "sources" not in dataset:
        message = "no data; add 'path: organization/name', or several 'sources:'"
        yield Problem(("dataset",), message)
    if "path" in dataset and "sources" in dataset:
        yield Problem(
            ("dataset", "path"), "conflicts with 'sources'; move it there, or remove one of the two"
        )


def source_keys_with_sources(data: Data) -> Iterator[Problem]:
    """With several sources, each has its own keys."""
    dataset = data["dataset"]
    written = [name for name, default in WITH_DEFAULT.items() if dataset[name] != default]
    for name in (*OF_A_SOURCE, *written):
        if name in dataset and "sources" in dataset and "path" not in dataset:
            yield Problem(("dataset", name), "not used with 'sources'; set it in each of their entries")


def hub_keys_of_local_data(data: Data) -> Iterator[Problem]:
    """Local files have no splits, configurations or revisions."""
    for path, source in _places(data):
        if not is_local(source):
            continue
        if source.get("split", "train") != "train":
            message = "local files have no splits; remove it, and select the file with 'path' or 'data_files'"
            yield Problem((*path, "split"), message)
        for name in ("name", "revision"):
            if name in source:
                yield Problem((*path, name), NOT_FOR_LOCAL_FILES)


def mix_of_one_source(data: Data) -> Iterator[Problem]:
    """Interleaving requires at least two sources."""
    dataset = data["dataset"]
    if dataset["mix"] == "interleave" and len(dataset.get("sources", ())) < 2:
        yield Problem(("dataset", "mix"), "requires at least two sources; add one, or remove this")


def keys_of_another_format(data: Data) -> Iterator[Problem]:
    """Some keys are used by some formats only."""
    for path, source in sources(data):
        kind = source["format"]
        if kind not in ("auto", "oasst") and source["threads"] != "all":
            yield Problem((*path, "threads"), f"only used with 'format: oasst', not with '{kind}'; remove it")
        if kind not in ("auto", *CHATS) and "map_roles" in source:
            yield Problem((*path, "map_roles"), f"'format: {kind}' has no roles; remove it")


def incomplete_row_template(data: Data) -> Iterator[Problem]:
    """A prompt requires a completion, and the other way round."""
    template = data["template"]
    for here, missing in (("prompt", "completion"), ("completion", "prompt")):
        if here in template and missing not in template:
            message = f"requires '{missing}'; add it, or use 'messages' instead"
            yield Problem(("template", here), message)
    if "messages" in template and ("prompt" in template or "completion" in template):
        message = "conflicts with 'prompt' and 'completion'; remove one of the two"
        yield Problem(("template", "messages"), message)


def row_template_and_format(data: Data) -> Iterator[Problem]:
    """A row template is filled from plain columns, and plain columns require one."""
    written = [name for name in ("messages", "prompt", "completion") if name in data["template"]]
    for path, source in sources(data):
        kind = source["format"]
        if kind == "columns" and not written:
            message = "'columns' requires a row template; add 'template.prompt' and 'template.completion'"
            yield Problem((*path, "format"), message)
        if kind not in ("auto", "columns") and written:
            message = f"'{kind}' conflicts with 'template.{written[0]}'; use 'columns', or remove it"
            yield Problem((*path, "format"), message)


def row_template_without_columns(data: Data) -> Iterator[Problem]:
    """A row template without a column would make all rows identical."""
    template = data["template"]
    texts = [template[name] for name in ("prompt", "completion") if name in template]
    texts += [message["content"] for message in template.get("messages", ())]
    if texts and not any(map(FIELD.search, texts)):
        name = "messages" if "messages" in template else "prompt"
        message = "uses no column, so all rows would be identical; insert columns as '{column}'"
        yield Problem(("template", name), message)


def last_message_not_assistant(data: Data) -> Iterator[Problem]:
    """The last turn is the answer that is trained."""
    messages = data["template"].get("messages")
    if messages and messages[-1]["role"] != "assistant":
        path = ("template", "messages", len(messages) - 1, "role")
        yield Problem(path, "the last message must be the assistant's; use 'role: assistant'")


def loss_of_another_format(data: Data) -> Iterator[Problem]:
    """Plain text has neither turns nor a completion."""
    template = data["template"]
    loss = template.get("loss", "all")
    if loss == "all":
        return
    if all(source["format"] == "text" for _, source in sources(data)):
        yield Problem(("template", "loss"), f"plain text has no {_part(loss)}; use 'all' or remove it")
    elif loss in ("assistant", "last_turn") and template.get("chat_template") == "none":
        message = f"there is no {_part(loss)} without a chat template; use 'completion' or 'all'"
        yield Problem(("template", "loss"), message)


def chat_without_chat_template(data: Data) -> Iterator[Problem]:
    """Conversations are rendered by a chat template."""
    for path, source in sources(data):
        if source["format"] in CHATS and data["template"].get("chat_template") == "none":
            message = f"'{source['format']}' requires a chat template; remove 'chat_template: none'"
            yield Problem((*path, "format"), message)


def system_without_conversation(data: Data) -> Iterator[Problem]:
    """A system message requires a conversation."""
    template = data["template"]
    textual = all(source["format"] == "text" for _, source in sources(data))
    if "system" in template and (textual or template.get("chat_template") == "none"):
        yield Problem(("template", "system"), "only used with conversations; remove it")


def fraction_with_other_eval_rows(data: Data) -> Iterator[Problem]:
    """Evaluation rows are either held out of the training rows or read from their own source."""
    held = data["dataset"].get("eval", {})
    if "fraction" not in held:
        return
    for name in ("rows", *OWN_ROWS):
        if name in held:
            yield Problem(("dataset", "eval", name), "conflicts with 'fraction'; remove one of the two")


def eval_without_rows(data: Data) -> Iterator[Problem]:
    """A configuration name or revision alone selects no rows."""
    held = data["dataset"].get("eval")
    if held and not set(held) & {"split", "path", "data_files", "fraction", "rows"}:
        yield Problem(("dataset", "eval"), "selects no rows; add 'split', 'path', 'fraction' or 'rows'")


def eval_on_training_rows(data: Data) -> Iterator[Problem]:
    """Evaluating on training rows proves nothing."""
    held = data["dataset"].get("eval", {})
    same = {name: value for name, value in held.items() if name in OWN_ROWS}
    if same and any(same == {name: source.get(name) for name in same} for _, source in sources(data)):
        path = ("dataset", "eval", next(iter(same)))
        yield Problem(path, "these are the training rows; use others, or 'fraction: 0.05' instead")


def no_training_rows_left(data: Data) -> Iterator[Problem]:
    """Holding rows out must leave some to train on."""
    dataset = data["dataset"]
    held, rows = dataset.get("eval", {}), most_rows(data)
    if set(held) == {"rows"} and rows is not None and held["rows"] >= rows:
        message = f"holding out {held['rows']} of {rows} rows leaves none to train on; use fewer"
        yield Problem(("dataset", "eval", "rows"), message)


def fraction_of_a_stream(data: Data) -> Iterator[Problem]:
    """The length of a stream is unknown, and so is a share of it."""
    dataset = data["dataset"]
    if dataset.get("streaming") and "fraction" in dataset.get("eval", {}):
        path = ("dataset", "eval", "fraction")
        yield Problem(path, "the length of a stream is unknown; use 'rows' or 'split' instead")


def _places(data: Data) -> Iterator[tuple[Path, Data]]:
    """The location of every source, and of evaluation rows with the path they inherit."""
    yield from sources(data)
    dataset = data["dataset"]
    held = dataset.get("eval", {})
    first = dataset if "path" in dataset else next(iter(dataset.get("sources", ())), {})
    inherited = {name: first[name] for name in ("path", "data_files") if name in first and "path" not in held}
    yield ("dataset", "eval"), inherited | held


def _part(loss: str) -> str:
    return {"assistant": "assistant's turn", "last_turn": "last turn", "completion": "completion"}[loss]
