"""Recipes become valid, complete and frozen values with origins, or every problem at its place."""

from __future__ import annotations

import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest

import loracook
from loracook.errors import LINE_LIMIT, Problem, RecipeError, dotted
from loracook.recipe.foreign_keys import OUR_PATHS, TRANSLATED
from loracook.recipe.recipe import load
from loracook.recipe.rules import RULES
from loracook.recipe.schema import part_at
from loracook.recipe.validate import problems_of
from tests.recipe.make_invalid import FOLDER as GENERATED
from tests.recipe.make_invalid import cases, lines
from tests.records import finished_stage

RECIPES = Path(__file__).parents[1] / "recipes"
INVALID = sorted(file for file in (RECIPES / "invalid").glob("**/*.yaml") if file.parent.name != "parts")
WARNED = sorted((RECIPES / "warned").glob("*.yaml"))
VALID = sorted((RECIPES / "valid").glob("*.yaml"))
BASE = "version: 1\nbase_model: {name_or_path: org/model}\ndataset: {path: org/rows}\nlora: {r: 8}\n"
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "bitsandbytes",
    "accelerate",
    "huggingface_hub",
    "numpy",
)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE)
    return file


def said(file: Path, *overrides: str) -> list[str]:
    with chdir(file.parent):
        return list(map(str, problems_of(file.name, overrides)))


def problems(file: Path, *overrides: str) -> list[tuple[str, str, str]]:
    """The place, path and rule of each problem."""
    with chdir(file.parent):
        return [(str(p.position), dotted(p.path), p.rule) for p in problems_of(file.name, overrides)]


@pytest.mark.parametrize("file", [*INVALID, *WARNED], ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_wrong_recipe_gets_exactly_these_lines(file: Path) -> None:
    assert lines(file) == file.with_suffix(".txt").read_text("utf-8")


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_a_valid_recipe_gets_no_line(file: Path) -> None:
    assert said(file) == []


def test_there_are_hundreds_of_wrong_recipes_and_all_are_refused() -> None:
    assert len(INVALID) >= 400
    assert len(VALID) >= 60
    assert [file.stem for file in INVALID if not _is_refused(file)] == []


def _is_refused(file: Path) -> bool:
    with chdir(file.parent):
        return any(problem.severity == "error" for problem in problems_of(file.name))


def test_the_generated_recipes_are_those_of_the_schema() -> None:
    assert sorted(name for name, _ in cases()) == sorted(file.stem for file in GENERATED.glob("*.yaml"))


def test_every_line_is_short_printable_and_without_a_full_stop() -> None:
    written = [
        line
        for file in [*INVALID, *WARNED]
        for line in file.with_suffix(".txt").read_text("utf-8").splitlines()
    ]
    assert [
        line for line in written if len(line) > LINE_LIMIT or not line.isprintable() or line.endswith(".")
    ] == []


def test_no_line_shows_a_secret() -> None:
    for file in (RECIPES / "invalid" / "by_hand" / "secrets").glob("*.txt"):
        assert "abcdefghijkl" not in file.read_text("utf-8").lower()


def test_every_rule_has_a_recipe_that_breaks_it() -> None:
    broken: set[str] = set()
    by_hand = RECIPES / "invalid" / "by_hand"
    found = (
        file for kind in ("contradictions", "hostile", "places") for file in (by_hand / kind).glob("*.yaml")
    )
    for file in [*WARNED, *found]:
        broken |= {problem.rule for problem in problems_of(str(file))}
    assert {rule.__name__.replace("_", "-") for rule in RULES} - broken == set()


def test_every_other_spelling_leads_to_a_key_that_is_there() -> None:
    targets = set(OUR_PATHS.values()) | {change(None)[0] for change in TRANSLATED.values()}
    assert [path for path in sorted(targets) if part_at(tuple(path.split("."))) is None] == []
    assert [name for name in [*OUR_PATHS, *TRANSLATED] if part_at((name,)) is not None] == []


def test_all_problems_of_a_level_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "version: 1\nbase_model: {name_or_path: a/b, dtype: bf16}\ndataset: {path: a/b, rws: 3}\nlora: {r: x}\n"
    )
    assert problems(file) == [
        ("a.yaml:2:40", "base_model.dtype", "enum"),
        ("a.yaml:3:22", "dataset.rws", "unknown-key"),
        ("a.yaml:4:11", "lora.r", "type"),
    ]


def test_a_known_spelling_is_named_however_many_unknown_keys_stand_before_it(recipe_file: Path) -> None:
    many = "".join(f"  zzq{number}: 1\n" for number in range(30))
    recipe_file.write_text(BASE + f"train:\n{many}  lr: 1e-4\n  target_modules: [q]\n  Seed: 3\n  zzq: 1\n")
    assert [path for _, path, _ in problems(recipe_file)[-4:]] == [
        "train.lr",
        "train.target_modules",
        "train.Seed",
        "train.zzq",
    ]
    for line, hint in zip(
        said(recipe_file)[-4:], ("'learning_rate", "'lora:'", "'seed'", "remove"), strict=True
    ):
        assert hint in line


def test_loracooks_defaults_are_filled_in_and_say_so(recipe_file: Path) -> None:
    recipe = load(recipe_file)
    assert recipe["train"]["learning_rate"] == 2e-4
    assert str(recipe.origin(("train", "learning_rate"))) == "loracook"
    assert str(recipe.origin(("lora", "r"))) == f"{recipe_file}:4"
    assert "evaluate" not in recipe
    assert recipe.name == "recipe"


def test_set_changes_values_by_the_type_that_the_schema_names(recipe_file: Path) -> None:
    texts = ["base_model.revision=123", "train.learning_rate=1e-5", "lora.target_modules=[q_proj, k]", "lora.use_dora=true",
             "dataset.where.lang=no", 'lora.rank_pattern."layers.0.q"=4', "train.report_to=none"]  # fmt: skip
    recipe = load(recipe_file, texts)
    assert recipe["base_model"]["revision"] == "123"
    assert recipe["train"]["learning_rate"] == 1e-5
    assert recipe["lora"]["target_modules"] == ["q_proj", "k"]
    assert recipe["lora"]["use_dora"] is True
    assert recipe["dataset"]["where"] == {"lang": "no"}
    assert recipe["lora"]["rank_pattern"] == {"layers.0.q": 4}
    assert str(recipe.origin(("lora", "use_dora"))) == "--set:4"


def test_set_reaches_into_lists_and_removes_with_null(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "version: 1\nbase_model: {name_or_path: a/b}\ndataset:\n  sources: [{path: a/b}, {path: a/c, rows: 5}]\nlora: {r: 8}\n"
    )
    recipe = load(file, ["dataset.sources.1.rows=7", "dataset.sources.0.path=a/d"])
    assert [(source["path"], source.get("rows")) for source in recipe["dataset"]["sources"]] == [
        ("a/d", None),
        ("a/c", 7),
    ]
    assert "rows" not in load(file, ["dataset.sources.1.rows=null"])["dataset"]["sources"][1]
    assert str(recipe.origin(("dataset", "sources", 1, "path"))) == f"{file}:4"


def test_set_replaces_a_mapping_as_it_does_a_list(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(BASE.replace("{r: 8}", "{r: 8, lora_alpha: 9, rank_pattern: {a: 1, b: 2}}"))
    recipe = load(file, ["lora.rank_pattern={b: 3}"])
    assert (recipe["lora"]["rank_pattern"], recipe["lora"]["lora_alpha"]) == ({"b": 3}, 9)
    recipe = load(file, ["lora={r: 4, rank_pattern: {c: 5}}", "lora.rank_pattern.d=6"])
    assert recipe["lora"] == {"r": 4, "rank_pattern": {"c": 5, "d": 6}} | {
        key: value for key, value in recipe["lora"].items() if str(recipe.origin(("lora", key))) == "loracook"
    }
    origins = {key: str(recipe.origin(("lora", key))) for key in ("r", "lora_alpha")}
    assert origins == {"r": "--set:1", "lora_alpha": "loracook"}
    assert str(recipe.origin(("lora", "rank_pattern", "d"))) == "--set:2"


@pytest.mark.parametrize(
    ("text", "place", "path", "rule"),
    [
        ("lora.r=eight", "--set:1:8", "lora.r", "type"),
        ("lora.rnk=8", "--set:1:1", "lora.rnk", "unknown-key"),
        ("lora", "--set:1:1", "", "set"),
        ("=8", "--set:1:1", "", "set"),
        ("a." * 5000 + "b=1", "--set:1:1", "", "set"),
        ("extends=a.yaml", "--set:1:1", "extends", "set"),
        ("lora.target_modules=[q", "--set:1:21", "", "yaml"),
        ("train.run_name=soup\u202e", "--set:1:1", "", "text"),
        ("train.run_name=\udcff", "--set:1:1", "", "text"),
        ("push.repo_id=hf_abcdefghijklmnopqrstuvwxyz", "--set:1:14", "push.repo_id", "secret"),
    ],
)
def test_a_wrong_set_is_reported_at_its_place_on_the_command_line(
    recipe_file: Path, text: str, place: str, path: str, rule: str
) -> None:
    assert problems(recipe_file, text) == [(place, path, rule)]


def test_set_does_not_reach_beyond_a_list(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(BASE.replace("{path: org/rows}", "{sources: [{path: a/b}]}"))
    assert problems(file, "dataset.sources.4.rows=1") == [("--set:1:1", "dataset.sources.4.rows", "set")]


@pytest.mark.parametrize("path", ["lora.lora_alpha", "train.seed", "dataset.eval", "dataset.where"])
def test_null_removes_what_the_file_says_however_deep_it_stands(tmp_path: Path, path: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        BASE.replace("{r: 8}", "{r: 8, lora_alpha: 9}").replace(
            "rows}", "rows, eval: {rows: 3}, where: {a: 1}}"
        )
        + "train: {seed: 7}\n"
    )
    section, name, *_ = path.split(".")
    assert load(file)[section][name] != load(file, [f"{path}=null"])[section].get(name)
    assert str(load(file, ["train.seed=null"]).origin(("train", "seed"))) == "loracook"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["lora.r=8", "lora.target_modules=[q"], [("--set:2:21", "", "yaml")]),
        (["lora", "lora.target_modules=[q"], [("--set:1:1", "", "set"), ("--set:2:21", "", "yaml")]),
        (["lora.r=8", "push.private=true"], [("--set:2:1", "push", "push-without-destination")]),
        (["dataset.sources.0.path=x/y"], [("--set:1:1", "dataset.sources.0.path", "set")]),
    ],
)
def test_every_wrong_set_is_reported_under_its_own_number(
    recipe_file: Path, texts: list[str], expected: list[tuple[str, str, str]]
) -> None:
    assert problems(recipe_file, *texts) == expected


def test_an_entry_of_a_list_that_set_changed_names_set(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(BASE.replace("{r: 8}", "{target_modules: [a, b]}"))
    recipe = load(file, ["lora.target_modules.1=c"])
    assert recipe["lora"]["target_modules"] == ["a", "c"]
    whole = ("lora", "target_modules")
    assert [str(recipe.origin(path)) for path in (whole, (*whole, 0), (*whole, 1))] == [
        "--set:1",
        f"{file}:4",
        "--set:1",
    ]


@pytest.fixture
def family(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.yaml").write_text(BASE + "train: {seed: 1, max_length: 256}\n")
    (tmp_path / "base" / "qlora.yaml").write_text(
        "extends: model.yaml\nlora:\n  lora_alpha: 8\n  target_modules: [a, b]\nquantization: {load_in_4bit: true}\n"
    )
    (tmp_path / "child.yaml").write_text(
        "extends: base/qlora.yaml\nname: child\nlora:\n  target_modules: [c]\nquantization: null\ntrain:\n  seed: 2\n"
    )
    return tmp_path / "child.yaml"


def test_a_child_merges_mappings_replaces_lists_and_removes_with_null(family: Path) -> None:
    recipe = load(family, ["train.seed=3"])
    assert (recipe["lora"]["r"], recipe["lora"]["lora_alpha"], recipe["lora"]["target_modules"]) == (
        8,
        8,
        ["c"],
    )
    assert (recipe["train"]["seed"], recipe["train"]["max_length"]) == (3, 256)
    assert "quantization" not in recipe
    assert "extends" not in recipe


def test_every_value_of_three_generations_and_set_knows_its_origin(family: Path) -> None:
    with chdir(family.parent):
        recipe = load("child.yaml", ["train.seed=3"])
        origins = {path: str(recipe.origin(path)) for path in [
            ("lora", "r"), ("lora", "lora_alpha"), ("lora", "target_modules"), ("lora", "target_modules", 0),
            ("train", "seed"), ("train", "max_length"), ("train", "learning_rate"), ("name",), ("version",)]}  # fmt: skip
    assert origins == {
        ("lora", "r"): "base/model.yaml:4",
        ("lora", "lora_alpha"): "base/qlora.yaml:3",
        ("lora", "target_modules"): "child.yaml:4",
        ("lora", "target_modules", 0): "child.yaml:4",
        ("train", "seed"): "--set:1",
        ("train", "max_length"): "base/model.yaml:5",
        ("train", "learning_rate"): "loracook",
        ("name",): "child.yaml:2",
        ("version",): "base/model.yaml:1",
    }


def test_a_value_that_a_child_removed_is_loracooks(family: Path) -> None:
    family.write_text(family.read_text() + "  max_length: null\n")
    recipe = load(family)
    assert (recipe["train"]["max_length"], str(recipe.origin(("train", "max_length")))) == (1024, "loracook")


def test_a_problem_of_a_parent_stands_in_the_parent_and_names_who_pulled_it_in(family: Path) -> None:
    (family.parent / "base" / "model.yaml").write_text(BASE.replace("r: 8", "r: eight"))
    assert problems(family) == [("base/model.yaml:4:11", "lora.r", "type")]
    assert said(family)[0].endswith(" (extended by base/qlora.yaml)")


def test_eight_parents_are_followed_and_a_ninth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r9.yaml").write_text(BASE)
    for number in range(9):
        (tmp_path / f"r{number}.yaml").write_text(f"extends: r{number + 1}.yaml\nname: r{number}\n")
    assert said(tmp_path / "r1.yaml") == []
    assert problems(tmp_path / "r0.yaml") == [("r8.yaml:1:10", "extends", "extends")]
    assert "8" in said(tmp_path / "r0.yaml")[0].partition("r9.yaml")[2]


def test_a_parent_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(BASE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.yaml").symlink_to("../secret.yaml")
    (tmp_path / "in" / "a.yaml").write_text("extends: link.yaml\n")
    assert problems(tmp_path / "in" / "a.yaml") == [("a.yaml:1:10", "extends", "extends")]
    assert "'link.yaml'" in said(tmp_path / "in" / "a.yaml")[0]


def test_a_relative_path_stays_inside_the_recipes_folder_after_links(recipe_file: Path) -> None:
    (recipe_file.parent / "out").symlink_to("/etc")
    recipe = load(recipe_file)
    assert recipe.resolve("./rows.jsonl") == recipe_file.parent.resolve() / "rows.jsonl"
    for use in (recipe.resolve, lambda path: load(recipe_file, [f"dataset.path={path}"])):
        with pytest.raises(RecipeError, match="outside the recipe's folder") as caught:
            use("./out/passwd")
    assert str(caught.value.problems[0]).startswith("--set:1:14: dataset.path:")


def test_a_stages_problem_points_into_the_recipe(recipe_file: Path) -> None:
    with chdir(recipe_file.parent):
        recipe = load("recipe.yaml")
    assert (
        str(recipe.problem(("dataset", "path"), "no such rows"))
        == "recipe.yaml:3:17: dataset.path: no such rows"
    )
    assert str(recipe.problem(("train", "seed"), "odd")) == "recipe.yaml:1:1: train.seed: odd"


def test_a_long_line_is_cut_and_a_long_file_name_gives_way_to_the_message() -> None:
    from loracook.errors import Position

    problem = Problem(("lora", "r"), "m" * 100, position=Position("/deep" * 50 + "/a.yaml", 1, 2, 3))
    assert (
        len(str(problem)) <= LINE_LIMIT,
        str(problem)[:1],
        "/a.yaml:1:2: lora.r: mmm" in str(problem),
    ) == (True, "…", True)


def test_a_long_line_keeps_the_name_of_the_recipe_that_pulled_a_parent_in() -> None:
    from loracook.errors import Position

    message = f"{'m' * 200} (extended by team/child.yaml)"
    line = str(Problem(("lora", "r"), message, position=Position("/deep" * 50 + "/a.yaml", 1, 2, 3)))
    assert len(line) <= LINE_LIMIT
    assert line.endswith("m… (extended by team/child.yaml)")


def test_the_library_gives_the_same_recipe(recipe_file: Path) -> None:
    assert loracook.load(recipe_file)["lora"] == load(recipe_file)["lora"]


@pytest.mark.parametrize(
    "verb", ["validate", "show", "explain", "diff", "schema", "runs", "compare", "clean"]
)
def test_no_verb_that_only_reads_imports_the_heavy_libraries_or_opens_a_socket(
    recipe_file: Path, verb: str
) -> None:
    arguments = {"schema": [], "diff": ["recipe.yaml", "recipe.yaml"], "explain": ["recipe.yaml", "lora.r"]}
    arguments |= {"compare": ["soup", "salt"], "runs": ["runs"], "clean": ["runs"]}
    for name in ("soup", "salt"):
        result = {"losses": {"loss": 0.5}, "steps": 2}
        finished_stage(recipe_file.parent / "runs" / name, "train-0000000a", result=result)
    script = (
        "import sys, socket\n"
        "def refuse(*_): raise SystemExit('a socket')\n"
        "socket.socket = refuse\n"
        "from loracook.cli import commands\n"
        f"commands({[verb, *arguments.get(verb, ['recipe.yaml'])]!r}, standalone_mode=False)\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=recipe_file.parent, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout.splitlines()[-1:]) == (0, ["HEAVY []"]), ran.stderr
