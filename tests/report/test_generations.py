"""The page of answers reads well as plain text and says what was cut and measured."""

from __future__ import annotations

import pytest

from loracook.report.generations import figure, side_by_side

ROWS = [
    {
        "prompt": [
            {"role": "user", "content": "Two soups & <b>bread</b>?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "cook"}}]},
        ],
        "reference": "<think>\n\n</think>\n\n2 soups",
        "base": "```\n# soup\n```",
        "adapter": "<think>\n\n</think>\n\n2 soups",
        "cut": ["base"],
        "scores": {"exact_match": {"base": 0.0, "adapter": 1.0}},
    },
    {"prompt": "Hello", "reference": None, "base": "", "adapter": "Hi", "cut": []},
]
MEASURED = {
    "base": {"loss": 2.5, "exact_match": 0.0},
    "adapter": {"loss": 0.5, "exact_match": 1.0},
    "rows": {"loss": 1200, "exact_match": 1},
    "wins": {},
    "intervals": {"loss": {"difference": [-2.25, -1.751]}},
    "also_trained": 0,
    "also": {},
    "adapters": {},
}


def test_generations_read_well_and_name_what_was_cut() -> None:
    assert (
        side_by_side(ROWS, MEASURED)
        == """# Base model and adapter side by side

| metric | base | adapter | difference | rows |
| --- | ---: | ---: | ---: | ---: |
| loss | 2.5 | 0.5 | better (-2.250 to -1.751) | 1,200 |
| exact_match | 0.0% | 100.0% |  | 1 |

Measured on evaluation rows that were not trained on.

## 1

**prompt**

```text
user: Two soups & <b>bread</b>?
assistant: {"name": "cook"}
```

**reference**

```text
<think>

</think>

2 soups
```

**base, exact_match 0.0%, cut by max_new_tokens**

````text
```
# soup
```
````

**adapter, exact_match 100.0%**

```text
<think>

</think>

2 soups
```

## 2

**prompt**

```text
Hello
```

**base**

```text
(empty)
```

**adapter**

```text
Hi
```
"""
    )


@pytest.mark.parametrize(
    ("value", "text"), [(1.2345, "1.234"), (51_461.2, "51,461"), (1000.4, "1,000"), (1e304, "1e+304")]
)
def test_a_large_perplexity_is_written_out(value: float, text: str) -> None:
    assert figure("perplexity", value) == text


def test_white_space_is_not_called_empty() -> None:
    row = {"prompt": "Say.", "reference": None, "base": "", "adapter": " \n"}
    page = side_by_side(
        [row],
        {
            "base": {},
            "adapter": {},
            "rows": {},
            "wins": {},
            "intervals": {},
            "also": {},
            "adapters": {},
            "also_trained": 0,
        },
    )
    assert page.index("(empty)") < page.index("(white space only)")


def test_other_adapters_and_further_rows_stand_in_the_same_table() -> None:
    general = {"base": {"loss": 1.0}, "adapter": {"loss": 1.5}, "rows": {"loss": 90}}
    general |= {"intervals": {"loss": {"difference": [0.25, 0.75]}}, "adapters": {"old": {"loss": 1.25}}}
    measured = MEASURED | {
        "also": {"general": general | {"wins": {}}},
        "adapters": {"old": {"loss": 1.0, "exact_match": 0.5}},
    }
    row = {"prompt": "Hi", "reference": None, "base": "a", "adapter": "b", "old": "the old one"}
    page = side_by_side([row], measured)
    assert "| loss | 2.5 | 0.5 | 1 | better (-2.250 to -1.751) | 1,200 |" in page
    assert "| general.loss | 1 | 1.5 | 1.25 | worse (+0.250 to +0.750) | 90 |" in page
    assert "**old**" in page
    assert "the old one" in page
