"""Metrics that hold an answer against its reference; each gives a share between 0 and 1, higher is better.

exact_match compares all that is written; the others leave out the reasoning before the final answer.
"""

import json
import re
from collections.abc import Callable

from loracook.errors import MachineError

Metric = Callable[[str, str], float | None]
Compare = Callable[[str, str], float | None]
FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL | re.IGNORECASE)
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}"
"""Scripts without spaces between words, whose characters count as words do."""
WORDS = rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+|(?!\p{{ASCII}})\p{{S}}"
PATTERN_SECONDS = 1.0
OPENING = (
    *("<think>", "<thinking>", "<reasoning>", "<seed:think>", "[THINK]", "<|START_THINKING|>"),
    *("<|channel>thought", "<|channel|>analysis<|message|>", "to=self<|message|>"),
)
"""What opens the reasoning in the templates of TRL and of public models."""
CLOSING = re.compile(
    r"</(?:think|thinking|reasoning|seed:think)>|\[/THINK\]|<\|END_THINKING\|>|<channel\|>"
    r"|(?:<\|(?:end|eom)\|><\|start\|>assistant)?(?:<\|channel\|>final| to=user)<\|message\|>"
    r"|<\|(?:end|eom)\|><\|start\|>assistant"
)


def metric(name: str, pattern: str | None = None) -> Metric:
    """The metric of that name, ready to use: None where nothing is left of the reference to compare with.

    `pattern` is what the metric `regex` looks for.

    Raises:
        MachineError: the package of rouge or chrf is not installed.
    """
    compare, read = _compare(name, pattern), str.strip if name == "exact_match" else final_answer
    return lambda answer, reference: compare(read(answer), wanted) if (wanted := read(reference)) else None


def final_answer(text: str) -> str:
    """What an answer says after its reasoning, empty if the reasoning has no end."""
    if closed := CLOSING.search(text):
        return text[closed.end() :].strip()
    return "" if text.lstrip().startswith(OPENING) else text.strip()


def opened_reasoning(prompt: str) -> str:
    """The opening of reasoning that a prompt ends with, which the answer after it goes on with; or empty."""
    return next((opening for opening in OPENING if prompt.rstrip().endswith(opening)), "")


def _compare(name: str, pattern: str | None) -> Compare:
    compare: dict[str, Compare] = {"exact_match": exact_match, "contains": contains, "json_match": json_match}
    if name in compare:
        return compare[name]
    try:
        return {"regex": lambda: regex_match(pattern or ""), "rouge": rouge, "chrf": chrf}[name]()
    except ImportError as error:
        message = f'the metric {name} needs one more package; run: pip install "loracook[metrics]"'
        raise MachineError(message) from error


def exact_match(answer: str, reference: str) -> float:
    """1 when both are the same text."""
    return float(answer == reference)


def contains(answer: str, reference: str) -> float:
    """1 when the reference stands in the answer, upper and lower case alike."""
    return float(reference.casefold() in answer.casefold())


def json_match(answer: str, reference: str) -> float | None:
    """1 when both are the same JSON value, whatever the order of keys; a code fence is allowed.

    None where the reference is no JSON.
    """
    wanted = _canonical(reference)
    return None if wanted is None else float(_canonical(answer) == wanted)


def regex_match(pattern: str) -> Compare:
    """Compare what `pattern` finds first in both, its group 1 where it has one.

    It gives None where the reference has no match.
    """
    import regex  # comes with transformers; unlike re it can be told to give up

    compiled = regex.compile(pattern)

    def first(text: str) -> str | None:
        try:
            found = compiled.search(text, timeout=PATTERN_SECONDS)
        except TimeoutError:
            return None
        group = int(bool(found and compiled.groups and found[1] is not None))
        return str(found[group]) if found else None

    return lambda answer, reference: (
        None if (wanted := first(reference)) is None else float(first(answer) == wanted)
    )


def rouge() -> Compare:
    """ROUGE-L F1 (Lin 2004), stemmed, from the package rouge-score; None where the reference has no word.

    The package's own tokenizer reads a-z and 0-9 alone. Here words of every script count, and what is
    written without spaces counts character by character.
    """
    import regex
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

    stem, pattern = PorterStemmer().stem, regex.compile(WORDS)

    class Words:
        def tokenize(self, text: str) -> list[str]:
            words: list[str] = pattern.findall(text.lower())
            return [stem(word) if len(word) > 3 and word.isascii() else word for word in words]

    words = Words()
    scorer = RougeScorer(["rougeL"], tokenizer=words)
    return lambda answer, reference: (
        float(scorer.score(reference, answer)["rougeL"].fmeasure) if words.tokenize(reference) else None
    )


def chrf() -> Compare:
    """Sentence-level chrF (Popović 2015) over 100, from the package sacrebleu."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()
    return lambda answer, reference: float(scorer.sentence_score(answer, [reference]).score / 100)


def _canonical(text: str) -> str | None:
    try:
        return json.dumps(json.loads(FENCE.sub(r"\1", text)), sort_keys=True)
    except (ValueError, RecursionError):
        return None
