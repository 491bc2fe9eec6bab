"""What is worth a sentence in the statistics of prepared rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SAID = {
    "truncated": "cut at train.max_length",
    "without_stop": "do not teach the model to stop",
    "fully_masked": "train nothing and were dropped",
    "duplicates": "repeat an earlier one word for word",
}


def notes(statistics: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each thing that was decided, dropped or found."""
    if statistics["sample"]:
        yield f"rows are streamed; the numbers are those of the first {statistics['rows']['train']}"
    for source in statistics["sources"]:
        yield from _of_source(source)
    for name, said in SAID.items():
        flaw = statistics["flaws"][name]
        if flaw["rows"]:
            yield f"{flaw['rows']} of the training rows ({flaw['share']:.1%}) {said}"
    if lost := statistics["lost_reasoning"]:
        yield f"{lost} of the training rows hold reasoning that the chat template does not write"
    if dropped := statistics["evaluation_dropped"]:
        yield f"{dropped} of the evaluation rows hold no answer within train.max_length and were dropped"
    leak = statistics["flaws"]["eval_leak"]
    if leak["rows"]:
        yield f"{leak['rows']} of the evaluation rows ({leak['share']:.1%}) are among the training rows"


def _of_source(source: Mapping[str, Any]) -> Iterator[str]:
    if source["because"]:
        yield f"{source['path']} is read as {source['format']}: {source['because']}"
    for reason, skipped in source["skipped"].items():
        yield f"{skipped['rows']} rows of {source['path']} left out: {reason}, first {skipped['first'][0]}"
    if source["place_holders"]["rows"]:
        rows, first = source["place_holders"]["rows"], source["place_holders"]["first"][0]
        yield f"{rows} rows of {source['path']} still hold place-holders like {{{{name}}}}, first {first}"
