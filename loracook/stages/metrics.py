"""Metrics that hold an answer against its reference; each gives a share between 0 and 1, higher is better."""

import json
import re
from collections.abc import Callable

from loracook.errors import MachineError

Metric = Callable[[str, str], float]
FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
PATTERN_SECONDS = 1.0


def metric(name: str, pattern: str | None = None) -> Metric:
    """The metric of that name, ready to use; `pattern` is what the metric `regex` looks for.

    Raises:
        MachineError: the package of rouge or chrf is not installed.
    """
    compare: dict[str, Metric] = {"exact_match": exact_match, "contains": contains, "json_match": json_match}
    if name in compare:
        return compare[name]
    try:
        return {"regex": lambda: regex_match(pattern or ""), "rouge": rouge, "chrf": chrf}[name]()
    except ImportError as error:
        message = f'the metric {name} needs one more package; run: pip install "loracook[metrics]"'
        raise MachineError(message) from error


def exact_match(answer: str, reference: str) -> float:
    """1 when both are the same text, white space at the ends aside."""
    return float(answer.strip() == reference.strip())


def contains(answer: str, reference: str) -> float:
    """1 when the reference stands in the answer, upper and lower case alike."""
    return float(reference.strip().casefold() in answer.casefold())


def json_match(answer: str, reference: str) -> float:
    """1 when both are the same JSON value, whatever the order of keys; a code fence is allowed."""
    try:
        return float(_canonical(answer) == _canonical(reference))
    except ValueError:
        return 0.0


def regex_match(pattern: str) -> Metric:
    """Compare what `pattern` finds first in both, its group 1 where it has one; no match in either is 0."""
    import regex  # comes with transformers; unlike re it can be told to give up

    compiled = regex.compile(pattern)

    def first(text: str) -> str | None:
        try:
            found = compiled.search(text, timeout=PATTERN_SECONDS)
        except TimeoutError:
            return None
        return str(found[1] if compiled.groups else found[0]) if found else None

    return lambda answer, reference: float((found := first(answer)) is not None and found == first(reference))


def rouge() -> Metric:
    """ROUGE-L F1 (Lin 2004), stemmed, from the package rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda answer, reference: float(scorer.score(reference, answer)["rougeL"].fmeasure)


def chrf() -> Metric:
    """Sentence-level chrF (Popović 2015) over 100, from the package sacrebleu."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()
    return lambda answer, reference: float(scorer.sentence_score(answer, [reference]).score / 100)


def _canonical(text: str) -> str:
    return json.dumps(json.loads(FENCE.sub(r"\1", text.strip())), sort_keys=True)
