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
    "intervals": {"loss": {"difference": [-2.25, -1.751]}},
    "also_trained": 0,
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
    page = side_by_side([row], {"base": {}, "adapter": {}, "rows": {}, "intervals": {}, "also_trained": 0})
    assert page.index("(empty)") < page.index("(white space only)")
