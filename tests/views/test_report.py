"""The report of a run: what it says, that all from outside stays text, and how it looks in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loracook.cli.report import command
from loracook.store.record import RECORD, keeping_failure
from loracook.store.runs import Run, newest
from loracook.views.report import as_html, write
from loracook.views.shown_run import Shown, of_run
from tests import browser
from tests.finished_runs import ANSWERS, MEASURED, TRAINED, finished_run

HOSTILE = (
    "</script><script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", "<!-- ", "]]>",
    "\" onmouseover=\"alert(1)\" x=\"", "' autofocus onfocus='alert(1)", "javascript:alert(1)", "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&#x3c;", "\u202eevil\u2066", "\x00\x07\x1b[31mred", "https://evil.example/x.png", "</div></body></html>",
)  # fmt: skip
NASTY = "".join(HOSTILE)
TAGS = {
    "html", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span", "nav", "a", "svg", "line", "circle",
    "rect", "text", "polyline", "figure", "figcaption", "b", "mark", "button", "input", "select", "option", "output",
    "ul", "li", "table", "tr", "td", "th", "pre", "script",
}  # fmt: skip
"""What the template itself is made of."""
CONTRAST = """(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
  };
  return [...document.querySelectorAll("body *:not(script)")].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && element.checkVisibility()
  ).map((element) => {
    const style = getComputedStyle(element);
    const both = [light(element.closest("svg") ? style.fill : style.color), light(ground(element))].sort();
    return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), element.className, element.textContent.slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
})()"""


SMALLEST = """Math.min(...[...document.querySelectorAll("body *:not(script)")].filter((element) =>
  [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && element.checkVisibility()
).map((element) => {
  const svg = element.closest("svg");
  const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  return parseFloat(getComputedStyle(element).fontSize) * scale;
}))"""
"""The height in pixels of the smallest text, which a drawing shrinks with itself."""


class Tags(HTMLParser):
    """The tags of a page, and the names and values of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep them."""
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}


def html(run: Path) -> str:
    return as_html(shown(run))


def shown(run: Path) -> Shown:
    return of_run(Run(run.name, run, newest(run)))


def plain(page: str) -> str:
    """The text of a page, on one line."""
    text = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(text).split())


def test_the_outcome_comes_first_with_what_got_better_and_worse_and_the_gates(tmp_path: Path) -> None:
    require = {"loss": {"below_base_by": 1}, "exact_match": {"at_least": 0.9}}
    measured = MEASURED | {"notes": ["'other' gives exactly the losses and answers of 'adapter'"]}
    text = plain(html(finished_run(tmp_path, evaluate={"require": require}, measured=measured)))
    assert text.startswith(
        "soup: report soup "
        "Better than the base model: loss 2.5 → 0.5, -2.000 (95% interval -2.100 to -1.900). "
        "Worse than the base model: exact_match 50.0% → 25.0%, -25.0 points (95% interval -50.0 to -1.0). "
        "'other' gives exactly the losses and answers of 'adapter' "
        "✓ gate met loss below base by 1 "
        "✗ gate not met exact_match at least 90.0%: 25.0% is not at least 90.0% "
        "Measured on evaluation rows that were not trained on."
    )


def test_how_far_answers_depend_on_the_batch_is_said(tmp_path: Path) -> None:
    again = {"rows": 8, "same": 5, "batch_size": 16, "dtype": "bfloat16", "metrics": {}}
    text = plain(html(finished_run(tmp_path, measured=MEASURED | {"other_batch": again})))
    assert "Asked again in another batch, 5 of 8 of the adapter's answers are the same (bfloat16, " in text
    text = plain(
        html(finished_run(tmp_path, name="salt", measured=MEASURED | {"other_batch": {"same": "<"}}))
    )
    assert "the other batch cannot be shown: " in text


def test_rows_stand_in_order_with_the_worst_first_and_differing_words_marked(tmp_path: Path) -> None:
    page = html(finished_run(tmp_path))
    assert re.findall(r'data-outcome="(\w+)"', page) == ["worse", "unscored", "better"]
    assert "<mark>Pea</mark> soup." in page
    assert "base · exact_match 0.0% · cut by max_new_tokens" in plain(page)
    assert "system Be brief. user Bread? reference Rye." in plain(page)


def test_training_data_cost_recipe_and_commands_are_all_told(tmp_path: Path) -> None:
    page = html(finished_run(tmp_path / "runs"))
    assert page.count("<polyline ") == 6
    text = plain(page)
    for said in (
        "Trainable params: 10 / 1,000 (1.00%). 4 optimizer steps, resumed from checkpoint-2.",
        "16 training rows and 4 evaluation rows were kept; 400 tokens, 25.0% of them in the loss.",
        "training rows that exceed train.max_length 2 12.5%", "rows of ./rows.jsonl skipped (no answer) 3",
        "peak memory 3 GiB \u2013 2 GiB time at most 4s 0.5 s for a pass 1m02s", "train done 1m02s",
        "train: 4 rows skipped", "r: 8 soup.yaml:3", "learning_rate: 0.2 --set", "torch 2.13.0",
        "loracook run soup.yaml --set train.learning_rate=0.2 --runs",
    ):  # fmt: skip
        assert said in text
    assert '<span class="trained">Leek.&lt;/s&gt;</span>' in page


def test_what_the_adapter_changed_is_drawn_by_kind_of_module(tmp_path: Path) -> None:
    effects = [
        {"module": f"model.layers.{layer}.{kind}", "r": 8, "norm": norm * (layer + 1), "base_norm": 10.0}
        for layer in range(30) for kind, norm in (("q_proj", 0.01), ("down_proj", 0.002))
    ]  # fmt: skip
    whole = {"module": "lm_head", "r": None, "norm": None, "base_norm": None}
    page = html(finished_run(tmp_path, result={**TRAINED, "effects": [*effects, whole]}))
    text = plain(page)
    assert "What the adapter changed" in text
    assert "q_proj · median 1.55%" in text
    assert "down_proj · median 0.31%" in text
    assert page.count('by layer">') == 2
    assert "model.layers.29.q_proj: 3.00%" in text
    assert "What the adapter changed" not in plain(html(finished_run(tmp_path, name="older")))
    broken = finished_run(tmp_path, name="broken", result={**TRAINED, "effects": [{"module": 5}]})
    assert "what the adapter changed cannot be shown: " in plain(html(broken))


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = finished_run(tmp_path, result={**TRAINED, "data": {"statistics": {"rows": "many"}}})
    (run / "evaluate-00000001" / "generations.jsonl").write_text('{"prompt": 5}\n')
    (run / "train-00000000" / "log.jsonl").write_text('{"step": "<b>"}\n')
    text = plain(html(run))
    for part in ("the answers", "the curves", "the data", "what training took"):
        assert f"{part} cannot be shown: " in text
    assert "Better than the base model: loss" in text
    (run / "evaluate-00000001" / RECORD).write_text("{}")
    assert "evaluate record.json is corrupt" in plain(html(run))


def test_a_run_that_was_stopped_in_training_shows_the_curves_so_far(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (run / "train-00000000" / RECORD).unlink()
    shutil.rmtree(run / "evaluate-00000001")
    page = html(run)
    assert "Training is not finished." in page
    assert page.count("<polyline ") == 6


def test_stages_that_failed_stand_beside_the_outcome_and_a_later_refusal_beside_them(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    for name, before in (("merge-00000002", "train-00000000"), ("push-00000003", "train-ffffffff")):
        (run / name).mkdir()
        with pytest.raises(KeyError), keeping_failure(run / name, [run / before]):
            raise KeyError("soup")
    text = plain(as_html(replace(shown(run), ended="push needs merge, which is not done")))
    assert "Better than the base model: loss" in text
    assert "merge failed: KeyError: 'soup' The last command ended early: push needs merge" in text
    assert "push failed" not in text  # that was another training's
    text = plain(as_html(replace(shown(run), ended="KeyError: 'soup'")))
    assert "merge failed" in text
    assert "The last command" not in text


def test_the_statistics_of_a_part_of_the_rows_say_so(tmp_path: Path) -> None:
    statistics = TRAINED["data"]["statistics"] | {"part": {"rows": 16, "of": 100_000}}
    result = TRAINED | {"data": TRAINED["data"] | {"statistics": statistics}}
    said = "These are the rows that max_steps trains, of 100,000; the others were not tokenized."
    assert said in plain(html(finished_run(tmp_path / "part", result=result)))
    assert "not tokenized" not in plain(html(finished_run(tmp_path / "all", result=TRAINED)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything that comes from outside attacks the page."""
    answers = [
        {
            "prompt": [{"role": NASTY, "content": NASTY, NASTY: NASTY}, NASTY, {"content": [NASTY]}],
            "reference": NASTY, "base": NASTY * 5, NASTY: NASTY, "adapter": "<b>" * 350_000, "cut": [NASTY],
            "scores": {NASTY: {"base": 1, "adapter": 0}}, "set": NASTY,
        }
    ]  # fmt: skip
    statistics = json.loads(json.dumps(TRAINED["data"]["statistics"]))
    statistics["sources"][0] |= {
        "path": NASTY,
        "format": NASTY,
        "use": NASTY,
        "skipped": {NASTY: {"rows": 1}},
    }
    device = {"name": NASTY, "bytes": 1}
    result = {
        **TRAINED, "effects": [{"module": NASTY, "r": 8, "norm": 1.0, "base_norm": 1e-300}], "resumed_from": NASTY, "best_checkpoint": NASTY, "base_commit": NASTY, "tokenizer_commit": NASTY,
        "memory": {**TRAINED["memory"], "device": device},
        "data": {"digest": NASTY, "statistics": statistics, "first_row": [[NASTY, NASTY], ["trained", NASTY]]},
    }  # fmt: skip
    measured = MEASURED | {"also": {NASTY: MEASURED}, "adapters": {NASTY: {"loss": 1e300}}, "notes": [NASTY]}
    return finished_run(
        tmp_path_factory.mktemp("hostile"), name=NASTY.replace("/", "\u2044").replace("\x00", "")[:80],
        answers=answers, measured=measured, result=result, notes=[NASTY], warnings=[NASTY], finished=NASTY,
        sections={"description": NASTY, NASTY: {NASTY: NASTY, "list": [NASTY]}}, origins={"lora.r": NASTY},
        versions={NASTY: NASTY}, recipe=NASTY, files={"a<b>": {"bytes": 1, "sha256": NASTY}},
    )  # fmt: skip


def test_whatever_comes_from_a_run_stays_text(hostile: Path) -> None:
    page = html(hostile)
    found = Tags(page)
    assert len(page) < 1_500_000
    assert found.tags <= TAGS
    assert {name for name, _ in found.attributes if name.startswith("on")} == set()
    assert {value for name, value in found.attributes if name in ("href", "src")} <= {
        f"#{part}" for part in re.findall(r'<h2 id="(\w+)"', page)
    }
    assert page.count("<script") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)


def test_a_page_of_200_rows_with_long_answers_is_small_and_made_fast(tmp_path: Path) -> None:
    long = 'Soup <&> "bread" ' * 2000
    rows = [
        {**ANSWERS[1], "prompt": f"{number} {long}", "base": long[number:], "adapter": f"x {long} {number}" * 2}
        for number in range(200)
    ]  # fmt: skip
    run = finished_run(tmp_path, answers=rows)
    began = time.process_time()
    page = html(run)
    assert time.process_time() - began < 3
    assert len(page.encode()) < 2_000_000
    assert page.count("data-outcome=") == 200
    assert "more characters in generations.jsonl" in page


def test_the_command_takes_a_run_folder_its_name_and_a_stage(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    for given in (str(run), "soup", "soup/train-00000000"):
        done = CliRunner().invoke(command, [given, "--runs", str(tmp_path / "runs")])
        assert (done.exit_code, done.output) == (0, f"{run / 'report.html'}\n")
    assert (run / "report.html").read_text("utf-8") == html(run)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    if browser.CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with browser.page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_complaint_or_request(
    page: browser.Page, hostile: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    require = {"exact_match": {"at_least": 0.9}, "loss": {"at_most": 1}}
    for run in (finished_run(tmp_path, evaluate={"require": require}), hostile):
        file = write(shown(run))
        page.open(file, width=width, scheme=scheme)
        assert page.value("document.documentElement.scrollWidth") <= width
        assert page.value(CONTRAST) == []
        assert page.value(SMALLEST) >= 12
        assert page.said() == []
        assert page.asked_for() == [file.resolve().as_uri()]


def test_on_paper_it_is_light_and_whole_and_has_nothing_to_click(
    page: browser.Page, hostile: Path, tmp_path: Path
) -> None:
    shapes = (
        """[...document.querySelectorAll("nav, .filter, button")].filter(e => e.checkVisibility()).length"""
    )
    cut = """[...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && e.scrollWidth > e.clientWidth + 1
      && getComputedStyle(e).overflowX !== "visible").length"""
    for run in (finished_run(tmp_path), hostile):
        page.open(write(shown(run)), width=680, scheme="dark", media="print")
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.value(CONTRAST) == []
        assert (page.value(shapes), page.value(cut)) == (0, 0)
        assert page.value("document.documentElement.scrollWidth") <= 680


def test_rows_are_filtered_by_outcome_and_by_words(page: browser.Page, tmp_path: Path) -> None:
    page.open(write(shown(finished_run(tmp_path))), width=1280, scheme="light")
    visible = "[...document.querySelectorAll('[data-outcome]:not([hidden])')].map(row => row.dataset.outcome)"
    assert page.value(visible) == ["worse", "unscored", "better"]
    page.value("document.querySelector('button[value=worse]').click()")
    assert page.value(visible) == ["worse"]
    page.value("document.querySelector('button[value=all]').click()")
    page.value(
        "(box => { box.value = 'RYE'; box.dispatchEvent(new Event('input')) })(document.querySelector('input'))"
    )
    assert page.value(visible) == ["better"]
    assert page.value("document.querySelector('output').textContent") == "1 of 3 shown"


def test_without_scripts_every_row_is_shown_and_no_filter(page: browser.Page, tmp_path: Path) -> None:
    page.open(write(shown(finished_run(tmp_path))), width=390, scheme="light", scripts=False)
    hidden: Any = page.value(
        "[...document.querySelectorAll('body *')].filter(e => !e.checkVisibility()).map(e => e.getAttribute('class') || e.tagName)"
    )
    assert set(hidden) <= {"filter", "BUTTON", "INPUT", "SELECT", "OPTION", "dim", "SCRIPT", "title"}
    assert page.value("document.querySelectorAll('[data-outcome]').length") == 3


def test_the_commands_serve_what_each_server_loads_and_the_page_says_who_cannot(tmp_path: Path) -> None:
    stated = [
        {"result": "adapter", "server": "vLLM", "flags": ["--enable-lora", ";", "reboot"], "reasons": []},
        {
            "result": "adapter", "server": "SGLang", "flags": [],
            "reasons": [{"text": "does not read modules_to_save", "source": "lora.py"}],
        },
    ]  # fmt: skip
    run = finished_run(
        tmp_path,
        sections={"base_model": {"name_or_path": "org/model", "revision": "a1"}},
        result={**TRAINED, "serving": stated},
    )
    text = plain(html(run))
    adapter = f"--lora-modules soup={run}/train-00000000/adapter"
    assert f"vllm serve org/model --revision a1 {adapter} --enable-lora ';' reboot" in text
    assert "not SGLang: it does not read modules_to_save (lora.py)" in text
    assert "sglang.launch_server" not in text


@pytest.mark.parametrize("stated", ["vLLM", [{"server": "vLLM"}], [5]])
def test_serving_that_cannot_be_read_is_said(tmp_path: Path, stated: Any) -> None:
    assert "what can serve it cannot be shown" in plain(
        html(finished_run(tmp_path, result={**TRAINED, "serving": stated}))
    )
