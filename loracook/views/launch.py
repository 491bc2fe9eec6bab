"""A recipe as a job: the text that `loracook launch` prints for Slurm, SkyPilot, Kubernetes or torchrun.

The text comes from the templates in `templates/launch`. What a user chose goes into them as one quoted word
of a shell or of YAML, or as a comment on one line, so that it stays data there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from textwrap import indent

from loracook.errors import clean, dotted
from loracook.recipe.locations import local_paths
from loracook.recipe.recipe import Recipe
from loracook.recipe.yaml_values import scalar

TEMPLATES = Path(__file__).parent / "templates" / "launch"
VOLUME = Path("/loracook")
"""Where a job in the cloud finds what must outlive its machine."""
SHARED = "Must be at the same paths on every node, best in a folder that they share:"
LONGEST_LABEL = 40
"""Characters of a job's name; Kubernetes adds to it for pods, whose names may have 63."""


@dataclass(frozen=True)
class Job:
    """A recipe to be run on so many nodes with so many GPUs each, and the options that `run` is to get."""

    recipe: Recipe
    version: str
    made_by: tuple[str, ...]
    nodes: int
    gpus: int
    runs: Path | None
    options: tuple[str, ...]
    folder: Path
    environment: Path | None
    time: str | None = None

    @property
    def processes(self) -> int:
        """The processes on each node: one for each GPU, one on a node without any."""
        return max(self.gpus, 1)

    def run(self, recipe: str, runs: Path | None) -> list[str]:
        """The words of the command that every process of the job runs."""
        launcher = ["python", "-m", "loracook", "run"] if self.nodes > 1 else ["loracook", "run"]
        processes = [f"--processes={self.gpus}"] if self.nodes == 1 and self.gpus else []
        kept = [f"--runs={runs}"] if runs else []
        file = f"./{recipe}" if recipe.startswith("-") else recipe
        return [*launcher, file, *processes, *kept, *self.options]

    def run_here(self) -> list[str]:
        """The same where the job starts in the folder that it was written in."""
        return self.run(str(self.recipe.file), self.runs)

    def run_elsewhere(self) -> list[str]:
        """The same where the job starts in a copy of the recipe's repository, with its runs on a volume."""
        folder = os.path.relpath(self.recipe.file.parent.resolve(), self.recipe.reach.root)
        recipe = os.path.normpath(os.path.join(folder, self.recipe.file.name))
        return self.run(recipe, self.runs or VOLUME / "runs")


class _Text(Template):
    """A template whose values are written @name, since shells have a use for $name."""

    delimiter = "@"


def job_text(kind: str, job: Job) -> str:
    """The whole job file, which ends in a line break."""
    return KINDS[kind](job)


def _slurm(job: Job) -> str:
    several = job.nodes > 1
    tasks = job.processes if several else 1
    run = _shell(job.run_here())
    environment = _word(str(job.environment / "bin" / "activate")) if job.environment else None
    return _filled(
        "slurm.sh",
        job,
        name=job.recipe.name,
        tasks=tasks,
        gpu_line=f"#SBATCH --gpus-per-node={job.gpus}" if job.gpus else "##SBATCH --gpus-per-node=1",
        time_line=f"#SBATCH --time={job.time}" if job.time else "##SBATCH --time=24:00:00",
        files=_files(job, SHARED, "HF_TOKEN must be set where you submit it; sbatch hands it on"),
        activate=f"source {environment}" if environment else "# source my-venv/bin/activate",
        folder=_word(str(job.folder)),
        start=_part("slurm-nodes.sh" if several else "slurm-one-node.sh", tasks=tasks, run=run),
    )


def _skypilot(job: Job) -> str:
    several = job.nodes > 1
    run = job.run_elsewhere()
    start = _part(
        "skypilot-nodes.sh" if several else "skypilot-one-node.sh",
        processes_per_node='"$SKYPILOT_NUM_GPUS_PER_NODE"' if job.gpus else "1",
        run=_shell(run[1:] if several else run),
    )
    allowed = {str(path): str(path) for path in job.recipe.allowed.paths}
    return _filled(
        "skypilot.yaml",
        job,
        label=_label(job.recipe.name),
        accelerators=_accelerators(job.gpus),
        recovery=_recovery(several=several),
        files=_files(job, "Uploaded with the folder `workdir`:", "start it with --secret HF_TOKEN"),
        root=scalar(str(job.recipe.reach.root)),
        mounts=_mapping("file_mounts", allowed),
        start=indent(start, "  "),
    )


def _kubernetes(job: Job) -> str:
    run = job.run_elsewhere()
    words = ["torchrun", *run[1:]] if job.nodes > 1 else run
    limits = f'    resourcesPerNode:\n      limits: {{"nvidia.com/gpu": {job.gpus}}}'
    return _filled(
        "kubernetes.yaml",
        job,
        access=" (ReadWriteMany)" if job.nodes > 1 else "",
        root=clean(_word(str(job.recipe.reach.root))),
        label=_label(job.recipe.name),
        resources=limits if job.gpus else "    numProcPerNode: 1",
        files=_files(job, "Must be in that copy:", "add HF_TOKEN to `env`, from a Secret"),
        # Kubernetes replaces $(NAME) in arguments, and takes $$ for $.
        args="\n".join(f"      - {scalar(word.replace('$', '$$'))}" for word in words),
    )


def _torchrun(job: Job) -> str:
    several = job.nodes > 1
    folder, run = _word(str(job.folder)), _shell(job.run_here()[1 if several else 0 :])
    every = f"--nnodes={job.nodes} --nproc_per_node={job.processes} --master_addr=HEAD --master_port=29500"
    lines = (
        f"cd -- {folder} && TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300 torchrun --node_rank={rank} {every} {run}"
        for rank in range(job.nodes)
    )
    one_for_each = "Run one line on each node; HEAD is the address of the first, which the others must reach."
    return _filled(
        "torchrun.sh",
        job,
        how=one_for_each if several else "Run it on the node.",
        files=_files(job, SHARED, "HF_TOKEN must be set on the first node"),
        start="\n".join(lines) if several else f"cd -- {folder} && {run}",
    )


KINDS: dict[str, Callable[[Job], str]] = {
    "slurm": _slurm,
    "skypilot": _skypilot,
    "kubernetes": _kubernetes,
    "torchrun": _torchrun,
}
"""What each value of --on makes of a job."""


def _filled(template: str, job: Job, **values: object) -> str:
    made = clean(f"Made with loracook {job.version}: {_shell(job.made_by)}")
    return _part(template, made=made, nodes=job.nodes, version=job.version, **values) + "\n"


def _part(template: str, **values: object) -> str:
    text = _Text((TEMPLATES / template).read_text("utf-8")).substitute(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _shell(words: list[str] | tuple[str, ...]) -> str:
    return " ".join(map(_word, words))


def _word(text: str) -> str:
    """A text as one word of bash on one line, whatever is in it."""
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_escaped, text))}'"


def _escaped(char: str) -> str:
    if char.isprintable():
        return f"\\{char}" if char in "\\'" else char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


def _label(name: str) -> str:
    """The recipe's name in the characters that Kubernetes and SkyPilot both allow in names."""
    label = re.sub("[^a-z0-9]+", "-", name[:LONGEST_LABEL]).strip("-")
    return label if label[0].isalpha() else f"run-{label}"


def _files(job: Job, heading: str, token: str) -> str:
    """What the job reads from this machine, and the token that an upload needs, as comments."""
    lines = [heading, *(f"  {line}" for line in _local(job.recipe))]
    if "--push" in job.options:
        lines.append(f"The job uploads: {token}.")
    return "\n".join(f"# {clean(line)}" for line in lines)


def _local(recipe: Recipe) -> Iterator[str]:
    files = (layer.file for layer in recipe.layers if layer.kind == "recipe")
    yield from map(_word, dict.fromkeys(files))
    for path, text in local_paths(dict(recipe.sections)):
        yield f"{_word(text)} ({dotted(path)})"
    for allowed in recipe.allowed.paths:
        yield f"{_word(str(allowed))} (--allow-path)"


def _accelerators(gpus: int) -> str:
    if not gpus:
        return "  cpus: 8+"
    return f"  accelerators: {{H100: {gpus}, H200: {gpus}, A100-80GB: {gpus}}} # one of these"


def _recovery(*, several: bool) -> str:
    if several:
        why = "torchrun ends with 1 where its processes end with 75 (stopped by a signal)"
        return f"    max_restarts_on_errors: 3 # {why}"
    return "    recover_on_exit_codes: [75] # stopped by a signal, and the checkpoint is saved"


def _mapping(key: str, entries: dict[str, str]) -> str:
    lines = (f"  {scalar(name)}: {scalar(value)}" for name, value in entries.items())
    return "\n".join([f"{key}:", *lines, ""]) if entries else ""
