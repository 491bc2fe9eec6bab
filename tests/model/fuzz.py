"""Folders of base models changed at random: every command ends as it should, and quickly.

`python -m tests.model.fuzz [seconds] [seed]` goes on until the time is up or a model breaks something; the folder
that does is left behind as broken-model.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.processes import LIBRARIES
from tests.tiny_models import SMALL, write_twin

SECONDS, BYTES = 30, 2 << 30
"""The most that the commands on one model may take, of a processor's time."""
WAITING = 4 * SECONDS
"""Seconds after which they are ended even if they wait; other work may share the machine."""
ENDINGS = (0, 2, 3)
COMMANDS = (("plan", "recipe.yaml"), ("inspect", "./model"), ("validate", "recipe.yaml"))
ROOM = 4 << 30
"""Bytes that a process may ask for beyond its libraries: what takes more is ended before it harms the machine."""
RECIPE = """version: 1
name: kitchen
base_model: {name_or_path: ./model}
dataset: {path: ./rows.jsonl}
lora: {r: 4, target_modules: all-linear}
train: {max_steps: 2, max_length: 64}
"""
ROW = '{"prompt": "Soup?", "completion": "Yes, please."}\n'
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -7, 3, 8, 10**3, 10**5, 10**7, 10**9, 10**12, 2**63, 10**40, 0.5, -0.0, 1e-300, 1e300, 1e9,
    float("nan"), float("inf"), "", "x", "x" * 5000, "../../etc/passwd", "/etc/passwd", "org/kernel", "org/kernel@main:f", "sdpa",
    "eager", "flash_attention_2", "pytorch_model.bin", "model.safetensors", "../x.safetensors", "auto", "bfloat16", "\udce9", "\x00",
    "{{ 1 }}", "{% for a in range(10**9) %}{% endfor %}", "<|endoftext|>", "LlamaTokenizer", "GPT2Tokenizer", "gptq", "awq", "fp8",
    "mxfp4", "bitsandbytes", "llama", "mixtral", "gpt2", "bert", "t5", "yarn", "longrope", [], {}, [[]], [None], ["a"], [1, 2],
    [10**9] * 3, ["x"] * 10**5, {"a": 1}, {"": {}}, {"0": {"content": "x"}}, {"quant_method": "gptq", "bits": 4}, {"quant_method": "x"},
    {"quant_method": "fp8"}, {"load_in_4bit": True}, {"rope_type": "yarn", "factor": 1e9}, {"AutoConfig": "x.Y"}, {"AutoConfig": "o/r--x.Y"},
)  # fmt: skip
KEYS = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation", "auto_map", "quantization_config",
    "text_config", "vision_config", "model_type", "architectures", "num_hidden_layers", "hidden_size", "vocab_size", "num_experts",
    "num_local_experts", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings",
    "layer_types", "rope_parameters", "rope_scaling", "dtype", "torch_dtype", "pad_token_id", "eos_token_id", "bos_token_id", "transformers_weights",
    "tie_word_embeddings", "is_decoder", "is_encoder_decoder", "fusion_config", "per_layer_config", "id2label", "sliding_window",
    "tokenizer_class", "tokenizer_file", "vocab_file", "merges_file", "vocab", "merges", "init_inputs", "fast_tokenizer_files", "gguf_file",
    "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens", "chat_template", "eos_token", "pad_token", "model_max_length",
    "backend", "temperature", "max_length", "max_new_tokens", "num_beams", "cache_implementation", "custom_generate", "weight_map", "metadata",
    "model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens", "truncation", "padding", "type", "unk_token", "version",
)  # fmt: skip
FILES = ("config.json",) * 5 + (
    "tokenizer_config.json", "tokenizer_config.json", "tokenizer.json", "tokenizer.json", "generation_config.json",
    "special_tokens_map.json", "added_tokens.json", "model.safetensors.index.json", "model.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How the commands on a model ended, what they said and took together."""

    codes: tuple[int, ...]
    said: str
    seconds: float
    bytes: int

    @property
    def fault(self) -> str | None:
        """What is wrong with that; None for nothing."""
        if len(self.codes) < len(COMMANDS):
            return f"ended by a signal or after {SECONDS} s: {self.said[-300:]}"
        if set(self.codes) - set(ENDINGS) or "out of memory" in self.said:
            return f"{self.codes}: {self.said[-600:]}"
        if self.bytes > BYTES:
            return f"took {self.bytes >> 20} MiB"
        return None


def write_seeds(folder: Path) -> list[Path]:
    """A folder of each kind of tiny model, to be changed; imports once what every process would import."""
    for name in (*LIBRARIES, *(f"loracook.cli.{command}" for command, _ in COMMANDS), "loracook.estimate"):
        import_module(name)
    seeds = []
    for kind in SMALL:
        seed = write_twin(folder / kind, kind)
        names = json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors"}})
        (seed / "model.safetensors.index.json").write_text(names)
        (seed / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
        (seed / "added_tokens.json").write_text("{}")
        seeds.append(seed)
    return seeds


def mutants(seeds: list[Path], seed: int, project: Path) -> Iterator[str]:
    """Make `project` a recipe on a changed model, one after the other for ever; gives what was changed."""
    draw = random.Random(seed)
    project.mkdir(exist_ok=True)
    (project / "recipe.yaml").write_text(RECIPE)
    (project / "rows.jsonl").write_text(ROW * 4)
    while True:
        shutil.rmtree(project / "model", ignore_errors=True)
        origin = draw.choice(seeds)
        shutil.copytree(origin, project / "model")
        changes = [_change(draw, project / "model") for _ in range(draw.choice((1, 1, 2, 3)))]
        yield f"{origin.name}: {'; '.join(changes)}"


def _change(draw: random.Random, model: Path) -> str:
    file = model / draw.choice(FILES)
    if not file.exists():
        return f"no {file.name}"
    if file.suffix == ".safetensors" or draw.random() < 0.2:
        file.write_bytes(draw.choice(BYTEWISE)(draw, file.read_bytes()))
        return f"bytes of {file.name}"
    try:
        data = json.loads(file.read_text())
    except (ValueError, RecursionError):  # it was changed before
        return f"{file.name} again"
    path = _change_value(draw, data)
    file.write_text(json.dumps(data))
    return f"{file.name} {path}"[:200]


def _change_value(draw: random.Random, data: Any) -> str:
    """Change, add or remove one value somewhere in data; gives which."""
    places = list(_containers(data)) or [({}, "")]
    container, at = draw.choice(places[:400])
    value = draw.choice(HOSTILE)
    if isinstance(container, list):
        container.insert(draw.randrange(len(container) + 1), value)
        return f"{at}[]={value!r}"
    key = draw.choice([*container, *draw.sample(KEYS, 2)] if draw.random() < 0.7 else KEYS)
    if draw.random() < 0.1:
        container.pop(key, None)
        return f"{at}.{key} removed"
    container[key] = value
    return f"{at}.{key}={value!r}"


def _containers(data: Any, at: str = "") -> Iterator[tuple[Any, str]]:
    if isinstance(data, dict | list):
        yield data, at
    inner = data.items() if isinstance(data, dict) else enumerate(data[:20]) if isinstance(data, list) else ()
    for key, value in inner:
        yield from _containers(value, f"{at}.{key}")


def _flip(draw: random.Random, content: bytes) -> bytes:
    place = draw.randrange(min(len(content), 2000) or 1)
    return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content) or 1)]


def _deep(draw: random.Random, content: bytes) -> bytes:
    return draw.choice((b'{"a":', b"[")) * draw.choice((100, 2000, 200_000))


def _other(draw: random.Random, content: bytes) -> bytes:
    return draw.choice(
        (b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"9" * 6000, b"\xff" * 8 + content[8:])
    )


BYTEWISE: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _flip, _cut, _deep, _other)


def outcome(project: Path) -> Outcome:
    """The outcome of the commands in a folder, in a process forked from this one."""
    said, began = project / "said", time.monotonic()
    pid = os.fork()
    if not pid:
        _become(project, said)
    until = began + WAITING
    ended, _, used = os.wait4(pid, os.WNOHANG)
    while not ended:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        ended, _, used = os.wait4(pid, os.WNOHANG)
    lines = said.read_text("utf-8", "replace").splitlines()
    codes = tuple(int(line.removeprefix("ended: ")) for line in lines if line.startswith("ended: "))
    return Outcome(codes, "\n".join(lines), time.monotonic() - began, used.ru_maxrss << 10)


def _become(project: Path, said: Path) -> None:
    """Be the commands, one after the other; write their output and exit codes to a file."""
    for number in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC * (number == 1) | os.O_APPEND), number)
    os.chdir(project)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    from loracook.cli import commands
    from loracook.cli.endings import ending

    for arguments in COMMANDS:
        code = ending(lambda arguments=arguments: commands(list(arguments), standalone_mode=False))  # type: ignore[misc]
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(1, f"\nended: {code}\n".encode())
    os._exit(0)


def main(seconds: float, seed: int) -> None:
    """Try mutants until the time is up; the first that breaks something is left in the working folder."""
    ends, number = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LORACOOK_CACHE"] = folder
        project = Path(folder) / "project"
        for number, change in enumerate(mutants(write_seeds(Path(folder)), seed, project), 1):
            if fault := outcome(project).fault:
                shutil.copytree(project, "broken-model", dirs_exist_ok=True)
                sys.exit(f"mutant {number} of seed {seed}, {change}: {fault}; left as broken-model")
            if time.monotonic() > ends:
                break
    print(f"{number} mutants of seed {seed}: nothing broke")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(float(given.get(0, 600)), int(given.get(1, time.time())))
