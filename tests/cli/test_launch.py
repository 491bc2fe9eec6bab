"""`loracook launch`: what the jobs say, that they start what they say, and that a user's text stays data in them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob as TrainJob

from loracook.cli import commands
from loracook.errors import LoracookError, RecipeError
from loracook.views.launch import KINDS

GOLDEN = Path(__file__).parent / "launch"
SKYPILOT = json.loads((Path(__file__).parents[1] / "files" / "skypilot-task-0.14.1.schema.json").read_text())
RECIPE = """\
version: 1
name: cook
base_model: {name_or_path: ./model}
dataset: {path: ./data/rows.jsonl}
lora: {r: 8}
train: {max_steps: 4, gradient_accumulation_steps: 4}
push: {repo_id: me/cook}
"""
SIZES = {
    "one-node": ("--nodes=1", "--gpus=8"),
    "two-nodes": ("--nodes=2", "--gpus=8"),
    "no-gpu": ("--nodes=1", "--gpus=0"),
    "no-gpus": ("--nodes=2", "--gpus=0"),
}
HOSTILE = (
    "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a\ntouch pwned\n", "\\", "$HOME $$ $(HOME)",
    "x: [y]  # z", "@run @@", "${HOME}", "\u2028touch pwned", "\x07\x85é", "-n", "💥", "#SBATCH --nodes=9", "!!", "%x", "",
)  # fmt: skip
STUBS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; export SLURM_PROCID=3 SLURM_LOCALID=1; "$@"',
    "loracook": 'printf "%s\\0" loracook "$@" >> "$OUT"; exit "${CODE:-0}"',
    "python": 'printf "%s\\0" "$RANK/$WORLD_SIZE@$MASTER_ADDR" python "$@" >> "$OUT"; exit "${CODE:-0}"',
    "torchrun": 'printf "%s\\0" torchrun "$@" >> "$OUT"; exit "${CODE:-0}"',
    "scontrol": '[ "$1" = show ] && printf "node7\\nnode8\\n" || echo "scontrol $*" >> "$OUT"',
}
"""Programs that write down how they were called; srun starts one of its processes."""


@pytest.fixture(autouse=True)
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, a repository with a recipe in it."""
    folder = tmp_path / "my kitchen"
    (folder / ".git").mkdir(parents=True)
    (folder / "cook.yaml").write_text(RECIPE)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder with the programs that jobs start."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def launch(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["launch", *arguments], standalone_mode=False)


def job(kind: str, *arguments: str, recipe: str = "cook.yaml") -> str:
    done = launch(recipe, f"--on={kind}", *arguments)
    assert done.exception is None, done.exception
    return done.stdout


def neutral(text: str, kitchen: Path) -> str:
    """A job without what this machine adds to it."""
    return re.sub(r"^source .*/activate$", "source VENV/bin/activate", text, flags=re.M).replace(
        str(kitchen), "/home/me/my kitchen"
    )


def started(script: str, stubs: Path, **variables: str) -> tuple[int, list[str]]:
    """The exit code of a script of bash, and the words of what it started."""
    out = stubs / "out"
    out.unlink(missing_ok=True)
    script = re.sub(r"^source .*$", "", script, flags=re.M)
    slurm = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NTASKS": "16"}
    sky = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}  # fmt: skip
    environment = {"PATH": f"{stubs}:{os.environ['PATH']}", "HOME": str(stubs), "OUT": str(out)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment | slurm | sky | variables, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.returncode, out.read_text("utf-8").split("\0") if out.exists() else []


def script_of(kind: str, text: str) -> str:
    """What a job of a kind runs, as a script of bash that can be run here; of torchrun the line of the last node."""
    if kind == "skypilot":
        return str(yaml.safe_load(text)["run"])
    if kind == "kubernetes":
        trainer = yaml.safe_load(text)["spec"]["trainer"]
        return shlex.join(map(expanded, trainer["args"]))
    return text.splitlines()[-1] if kind == "torchrun" else text


def expanded(argument: str) -> str:
    """An argument as Kubernetes hands it to a container: $$ is $, and no variable is left to be replaced."""
    assert not re.search(r"(?<!\$)(?:\$\$)*\$\(", argument)
    return argument.replace("$$", "$")


@pytest.mark.parametrize("size", ["one-node", "two-nodes"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_job_reads_like_this(kind: str, size: str, kitchen: Path) -> None:
    text = job(kind, *SIZES[size], "--push", "--set=train.max_steps=5")
    golden = GOLDEN / f"{kind}-{size}.txt"
    assert neutral(text, kitchen) == golden.read_text("utf-8")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_job_starts_run_with_the_options_it_was_given(
    kind: str, size: str, stubs: Path, kitchen: Path
) -> None:
    other = kitchen.parent / "other"
    other.mkdir()
    options = ("--push", "--set=train.max_steps=5", f"--allow-path={other}", "--runs=/my runs")
    code, words = started(script_of(kind, job(kind, *SIZES[size], *options)), stubs)
    run = words[words.index("run") + 1 : -1]
    given = ["--runs=/my runs", "--set=train.max_steps=5", f"--allow-path={other}", "--push"]
    processes = ["--processes=8"] if size == "one-node" else []
    assert (code, run) == (0, ["cook.yaml", *processes, *given])


def test_the_launcher_of_several_nodes_is_told_where_it_is(stubs: Path) -> None:
    heads = {kind: started(script_of(kind, job(kind, "--nodes=2", "--gpus=8")), stubs)[1] for kind in KINDS}
    run = ["-m", "loracook", "run", "cook.yaml"]
    head = [words[: words.index("cook.yaml") + 1] for words in heads.values()]
    master = "--master_port=29500"
    assert head == [
        ["3/16@node7", "python", *run],
        [
            "torchrun",
            "--nnodes=2",
            "--node_rank=1",
            "--nproc_per_node=8",
            "--master_addr=10.0.0.1",
            master,
            *run,
        ],
        ["torchrun", *run],
        ["torchrun", "--node_rank=1", "--nnodes=2", "--nproc_per_node=8", "--master_addr=HEAD", master, *run],
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("code", "requeued"), [("0", False), ("2", False), ("75", True), ("143", False)])
def test_a_job_of_slurm_is_queued_again_on_75_alone(
    size: str, code: str, requeued: bool, stubs: Path
) -> None:
    ended, words = started(job("slurm", *SIZES[size]), stubs, CODE=code)
    assert (ended, "scontrol requeue 12\n" in words) == (int(code), requeued)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_user_writes_stays_data_in_every_job(kind: str, size: str, stubs: Path, kitchen: Path) -> None:
    allowed = [text for text in HOSTILE if text and not re.search("[\u2028\x07]", text)]
    values = [f"evaluate.prompts=[{json.dumps(text, ensure_ascii=False)}]" for text in allowed]
    values += [
        f"template.system={text}"
        for text in ("$(touch pwned)", "`touch pwned`", 'a "b" \\ @run 💥', "it's\n $$\n")
    ]
    text = job(kind, *SIZES[size], *(f"--set={value}" for value in values))
    check_syntax(kind, text)
    _, words = started(script_of(kind, text), stubs)
    assert [word for word in words if word.startswith("--set=")] == [f"--set={value}" for value in values]
    assert not list(kitchen.rglob("pwned")) + list(stubs.rglob("pwned"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [text for text in HOSTILE if text])
def test_so_do_the_names_of_recipes_and_folders(kind: str, size: str, name: str, stubs: Path, kitchen: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    folder = kitchen.parent / name
    (folder / ".git").mkdir(parents=True)
    file = folder / f"{name}.yaml"
    file.write_text(RECIPE)
    monkeypatch.chdir(folder)
    text = job(kind, *SIZES[size], f"--runs={name}/runs", recipe=f"./{name}.yaml")
    check_syntax(kind, text)
    if kind in ("slurm", "torchrun"):  # the others start in a copy of the folder
        monkeypatch.chdir(stubs)
    _, words = started(script_of(kind, text), stubs)
    recipe = words[words.index("run") + 1]
    assert (os.path.normpath(recipe), f"--runs={name}/runs" in words) == (f"{name}.yaml", True)
    assert not list(kitchen.parent.rglob("pwned"))


def check_syntax(kind: str, text: str) -> None:
    """Every format is what its own readers accept, and its comments are one line each."""
    if kind == "slurm":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
        assert len([line for line in directives if "--nodes" in line]) == 1
    elif kind == "skypilot":
        check_skypilot(text)
    elif kind == "kubernetes":
        check_kubernetes(text)


def check_skypilot(text: str) -> dict[str, Any]:
    """A SkyPilot task, valid by SkyPilot's own schemas of tasks and resources."""
    task: dict[str, Any] = yaml.safe_load(text)
    Draft202012Validator(SKYPILOT["task"]).validate(task)
    Draft202012Validator(SKYPILOT["resources"]).validate(task["resources"])
    assert re.fullmatch(SKYPILOT["name"], task["name"])
    return task


def check_kubernetes(text: str) -> dict[str, Any]:
    """A TrainJob, of which Kubeflow's own models keep every value."""
    written: dict[str, Any] = yaml.safe_load(text)
    read = TrainJob.from_dict(written)
    assert read is not None
    assert read.to_dict() == written
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", written["metadata"]["name"])
    return written


@pytest.mark.parametrize("size", SIZES)
def test_skypilot_reads_its_task(size: str, kitchen: Path) -> None:
    task = check_skypilot(job("skypilot", *SIZES[size], f"--allow-path={kitchen.parent}"))
    assert (task["workdir"], task["file_mounts"]) == (
        str(kitchen),
        {str(kitchen.parent): str(kitchen.parent)},
    )


@pytest.mark.parametrize("size", SIZES)
def test_kubeflow_reads_its_train_job(size: str) -> None:
    trainer = check_kubernetes(job("kubernetes", *SIZES[size]))["spec"]["trainer"]
    nodes, gpus = (int(option.partition("=")[2]) for option in SIZES[size])
    assert trainer["numNodes"] == nodes
    assert trainer.get("resourcesPerNode") == ({"limits": {"nvidia.com/gpu": gpus}} if gpus else None)


@pytest.mark.parametrize("name", ["9-lives", "a" * 64, "a..b--c", "x-", "0"])
def test_every_name_of_a_recipe_is_one_in_the_cloud(name: str) -> None:
    check_skypilot(job("skypilot", f"--set=name={name}"))
    check_kubernetes(job("kubernetes", f"--set=name={name}"))


def test_a_recipe_in_a_folder_of_a_repository_is_found_in_its_copy(kitchen: Path, stubs: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (kitchen / "recipes" / "data").mkdir(parents=True)
    (kitchen / "cook.yaml").rename(kitchen / "recipes" / "cook.yaml")
    monkeypatch.chdir(kitchen / "recipes" / "data")
    text = job("skypilot", recipe="../cook.yaml")
    assert yaml.safe_load(text)["workdir"] == str(kitchen)
    assert "recipes/cook.yaml" in started(script_of("skypilot", text), stubs)[1]


def test_a_job_is_written_to_a_new_file_and_never_over_another(kitchen: Path) -> None:
    done = launch("cook.yaml", "--on=slurm", "--write=job.sh")
    assert (done.stdout, (kitchen / "job.sh").read_text()) == ("wrote job.sh\n", job("slurm"))
    (kitchen / "job.sh").write_text("edited")
    again = launch("cook.yaml", "--on=slurm", "--write=job.sh").exception
    assert isinstance(again, LoracookError)
    assert (kitchen / "job.sh").read_text() == "edited"


def test_a_wrong_recipe_is_named_and_no_job_is_made() -> None:
    refused = launch("cook.yaml", "--on=slurm", "--set=lora.r=-1", "--write=job.sh").exception
    assert isinstance(refused, RecipeError)
    assert not Path("job.sh").exists()


@pytest.mark.parametrize("time", ["1; touch pwned", "soon", "", "1:2:3:4", "1\n#SBATCH --nodes=9"])
def test_a_time_limit_that_slurm_would_not_read_is_refused(time: str) -> None:
    assert isinstance(launch("cook.yaml", "--on=slurm", f"--time={time}").exception, LoracookError)


def test_a_time_limit_is_for_slurm() -> None:
    assert "#SBATCH --time=2-00:30:00\n" in job("slurm", "--time=2-00:30:00")
    assert isinstance(launch("cook.yaml", "--on=kubernetes", "--time=1:00:00").exception, LoracookError)


def test_a_name_that_is_not_text_is_refused(kitchen: Path) -> None:
    file = os.fsdecode(b"\xff.yaml")
    try:
        Path(file).write_text(RECIPE.replace("name: cook", "name: bytes"))
    except OSError:
        pytest.skip("this file system takes no such name")
    assert isinstance(launch(file, "--on=slurm").exception, LoracookError)


def test_a_number_of_processes_that_cannot_share_a_step_is_refused() -> None:
    result = CliRunner().invoke(
        commands, ["launch", "cook.yaml", "--on=slurm", "--nodes=3", "--gpus=8"], standalone_mode=False
    )
    assert str(result.exception) == (
        "cook.yaml:6:1: train.per_device_train_batch_size: 16 rows in a step cannot be divided among 24 processes; "
        "write gradient_accumulation_steps: 6, or use 1, 2, 4, 8, 16 processes"
    )
