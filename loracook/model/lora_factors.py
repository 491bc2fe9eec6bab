"""The LoRA factors in the folder of an adapter that PEFT saved, read as a stranger's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import TRAIN_AGAIN, DivergedError, LoracookError, quote
from loracook.model.base_weights import FLOATS
from loracook.model.finite import not_finite
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.reach import OutOfReachError, Reach
from loracook.store.read_back import NUMBER, check_shape, read_json
from loracook.store.release import ADAPTER

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS = ADAPTER
DEFAULTS: dict[str, Any] = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 8, "use_rslora": False, "fan_in_fan_out": False,
    "rank_pattern": {}, "alpha_pattern": {}, "target_parameters": [], "layer_replication": [],
    "init_lora_weights": True, "base_model_name_or_path": "", "revision": "",
}  # fmt: skip
"""What is read of a config, with PEFT's own defaults (0.21, LoraConfig)."""
SHAPE = {
    "peft_type": str, "r": int, "lora_alpha": NUMBER, "use_rslora": bool, "fan_in_fan_out": bool,
    "rank_pattern": {str: int}, "alpha_pattern": {str: NUMBER}, "target_parameters": [str],
    "layer_replication": list, "init_lora_weights": bool | str, "base_model_name_or_path": str,
    "revision": str,
}  # fmt: skip
VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "kasa_config", "arrow_config", "monteclora_config", "lora_bias",
)  # fmt: skip
"""Settings with which a module's output changes by more than (alpha/r)·BA."""
INTO_ADAPTER = re.compile(r"pissa|olora|corda|lora_ga|loftq")
"""Initializations that take a part of W into the adapter, or replace W, before training (LoraLayer)."""
PREFIX = "base_model.model."
FACTOR = re.compile(r"(.{1,400})\.lora_(embedding_)?([AB])(?:\.weight)?")
KNOWN_APART = re.compile(r".*\.(lora_magnitude_vector(\.weight)?|lora_B\.bias)|.*\.base_layer\..*")
"""Tensors of a variant that a note names, and W itself, which PEFT saves beside adapted embeddings."""
LARGEST_ALPHA = 1e9
MOST_PATTERNS = 256
"""Of a rank_pattern or alpha_pattern, each tried on every module; re keeps twice as many compiled."""
COSTLY = re.compile(r"\)[*+?{]|(?:[*+{].*){3}", re.DOTALL)
"""What a stranger's pattern might take for ever to match with."""


class MisfitError(LoracookError):
    """The factors of a module are not two matrices of its rank."""


@dataclass(frozen=True)
class Factors:
    """The low-rank change of one weight: ΔW = scaling · left @ right, in float64.

    `left` is (experts, n, r) and `right` (experts, r, m), one expert for any weight but a stack of them.
    `weights` are the names that W may have: PEFT does not save which of its parameters a module's factors are
    for. `transposed` says whether W is stored as (m, n) where n equals m.
    """

    module: str
    weights: tuple[str, ...]
    left: Tensor
    right: Tensor
    scaling: float
    transposed: bool


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter's settings and its open file of weights."""

    folder: Path
    settings: Mapping[str, Any]
    variants: tuple[str, ...]
    names: tuple[str, ...]
    file: Any
    """The weights, open; `names` has those in it."""

    @cached_property
    def modules(self) -> dict[str, dict[str, str]]:
        """The names of each module's factors, `A` and `B`, by the name of the module in the file."""
        found: dict[str, dict[str, str]] = {}
        for name in self.names:
            if match := FACTOR.fullmatch(name):
                found.setdefault(match[1], {})[(match[2] or "") + match[3]] = name
        return found

    @cached_property
    def whole_weights(self) -> dict[str, str]:
        """The names of weights that are saved whole (modules_to_save …), by those of the base model."""
        names = [name for name in self.names if _is_whole(name)]
        return {_plain(name).replace(".modules_to_save", ""): name for name in names}

    def factors_alone(self) -> SavedAdapter:
        """The same without the weights that are saved whole, which take gigabytes to compare."""
        whole = set(self.whole_weights.values())
        return replace(self, names=tuple(name for name in self.names if name not in whole))

    def not_shown(self) -> list[str]:
        """The names of tensors that are neither."""
        shown = {name for parts in self.modules.values() for name in parts.values()}
        shown |= set(self.whole_weights.values())
        return [name for name in self.names if name not in shown and not KNOWN_APART.fullmatch(name)]

    def tensor(self, name: str) -> Tensor:
        """A tensor in float64; raises MisfitError for a quantized one, DivergedError for one with NaN."""
        dtype = self.file.get_slice(name).get_dtype()
        if dtype not in FLOATS:
            raise MisfitError(f"{name} is stored as {dtype}")
        tensor: Tensor = self.file.get_tensor(name).double()
        if not_finite([(name, tensor.float())]):  # squares of what float32 can hold fit float64
            raise DivergedError(f"the adapter's weight {name} holds NaN or infinity; {TRAIN_AGAIN}")
        return tensor

    def dtype(self, name: str) -> torch.dtype:
        """The dtype that a tensor is stored in."""
        stored: torch.dtype = self.file.get_slice(name)[:0].dtype
        return stored

    def factors(self, key: str) -> Factors:
        """The factors of a module by its name in the file.

        Raises:
            MisfitError: they are not what its r says.
            LoracookError: the settings give no r or lora_alpha for it.
        """
        module, parts = _plain(key), self.modules[key]
        experts = self._target_parameters(module)
        name = experts[0] if len(experts) == 1 else key.removeprefix(PREFIX) if experts else module
        r = int(self._value("r", "rank_pattern", experts or (module,)))
        alpha = float(self._value("lora_alpha", "alpha_pattern", experts or (module,)))
        if r < 1 or not abs(alpha) <= LARGEST_ALPHA:
            raise LoracookError(f"{CONFIG} has r = {r} and lora_alpha = {alpha} for {name}; fix it there")
        embedding = set(parts) == {"embedding_A", "embedding_B"}
        if not embedding and set(parts) != {"A", "B"}:
            raise MisfitError(f"{name} has no pair of lora_A and lora_B")
        a, b = (self.tensor(parts[part]) for part in sorted(parts))
        if min(a.ndim, b.ndim) < 2:
            raise MisfitError(f"{name}: lora_A or lora_B is no matrix")
        if embedding:  # PEFT saves them as (r, tokens) and (dimension, r), and adds their product transposed
            a, b = b.mT, a.mT
        try:
            left, right = _stacked(a, b, r, many=bool(experts))
        except MisfitError as error:
            raise MisfitError(f"{name}: {error}") from error
        scaling = alpha / (math.sqrt(r) if self.settings["use_rslora"] else r)
        weights = experts or (f"{module}.weight",)
        transposed = self.settings["fan_in_fan_out"] and not embedding
        return Factors(name, weights, left, right, scaling, transposed)

    def _value(self, setting: str, patterns: str, names: Sequence[str]) -> float:
        """The r or lora_alpha of what may have any of some names."""
        values = {_matched(self.settings[patterns], name, self.settings[setting]) for name in names}
        if len(values) > 1:
            raise MisfitError(f"{' or '.join(names)}: {patterns} has more than one {setting} for them")
        return values.pop()

    def _target_parameters(self, module: str) -> tuple[str, ...]:
        """The parameters of a module that target_parameters may mean."""
        targets = (target.rpartition(".") for target in self.settings["target_parameters"])
        ends = ((parent, own) for parent, _, own in targets if f".{module}".endswith(f".{parent}"))
        return tuple(f"{module}.{own}" for _, own in ends)


def read_adapter(folder: Path, allowed: Allowed = NOTHING) -> SavedAdapter:
    """The LoRA adapter in a folder, whose files may be links to places that the user allows.

    Raises:
        LoracookError: it is no LoRA adapter in safetensors, cannot be read, or leads elsewhere.
    """
    from safetensors import SafetensorError, safe_open

    config, weights = (_file(folder, name, allowed) for name in (CONFIG, WEIGHTS))
    try:
        data = read_json(config, dict)
        settings = DEFAULTS | {key: data[key] for key in DEFAULTS if data.get(key) is not None}
        check_shape(settings, SHAPE)
    except (OSError, ValueError) as error:
        message = f"'{folder / CONFIG}' is no config that PEFT wrote; copy the adapter again"
        raise LoracookError(message) from error
    if settings["peft_type"] != "LORA":
        raise LoracookError(f"'{folder}' holds {quote(settings['peft_type'])}; name a LoRA adapter")
    if not weights.is_file():
        raise LoracookError(
            f"'{folder}' has no {WEIGHTS}, and pickles can run code; save it with safetensors"
        )
    file: Any
    try:
        file = safe_open(weights, "pt")
    except (OSError, SafetensorError) as error:
        message = f"'{folder / WEIGHTS}' cannot be read: {error}; copy the adapter again"
        raise LoracookError(message) from error
    variants = tuple(name for name in VARIANTS if data.get(name))
    return SavedAdapter(folder, settings, variants, tuple(file.keys()), file)


def _file(folder: Path, name: str, allowed: Allowed) -> Path:
    """A file of an adapter; raises LoracookError where it leads elsewhere."""
    reach = Reach(folder, folder.resolve(), allowed.and_path(folder))  # the hub's cache links to its blobs
    try:
        return reach.resolve(name)
    except OutOfReachError as error:
        message = (
            f"'{folder / name}' is no file of that folder; copy it there, or allow its place: --allow-path"
        )
        raise LoracookError(message) from error


def _stacked(a: Tensor, b: Tensor, r: int, *, many: bool) -> tuple[Tensor, Tensor]:
    """B and A as stacks of matrices; PEFT keeps those of experts in one (ParamWrapper.get_delta_factors)."""
    experts = a.shape[0] // r if many else 1
    right, left = a.flatten(1), b.flatten(1)
    if not (a.numel() and b.numel() and right.shape[0] == left.shape[1] == experts * r):
        shapes = " and ".join("x".join(map(str, tensor.shape)) for tensor in (a, b))
        raise MisfitError(f"lora_A and lora_B of {shapes} do not fit r = {r}")
    return left.reshape(-1, r, experts).permute(2, 0, 1), right.reshape(experts, r, -1)


def _matched(patterns: Mapping[str, float], name: str, default: float) -> float:
    """The value of the first pattern that matches a name as PEFT matches it (get_pattern_key)."""
    if len(patterns) > MOST_PATTERNS:
        raise LoracookError(f"{CONFIG} has {len(patterns):,} patterns; name an adapter with fewer")
    for pattern in patterns:
        if COSTLY.search(pattern) or len(pattern) > 400:
            raise LoracookError(
                f"the pattern {quote(pattern)} in {CONFIG} is too complex; write a simpler one"
            )
        try:
            if re.match(rf"(.*\.)?({pattern})$", name):
                return patterns[pattern]
        except (re.error, OverflowError) as error:
            raise LoracookError(f"the pattern {quote(pattern)} in {CONFIG} is invalid: {error}") from error
    return default


def _plain(name: str) -> str:
    """The name in the base model of a module or weight in an adapter's file."""
    return name.removeprefix(PREFIX).replace(".base_layer", "")


def _is_whole(name: str) -> bool:
    return "lora_" not in name and "trainable_tokens" not in name and not KNOWN_APART.fullmatch(name)
