"""What can load an adapter as it is, and what a merged model is for; each limit with its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

TRANSFORMERS, VLLM, SGLANG, LLAMA_CPP = "transformers", "vLLM", "SGLang", "llama.cpp"
SERVERS = (TRANSFORMERS, VLLM, SGLANG, LLAMA_CPP)
PEFT_AUTO = "peft 0.21 auto.py"
"""AutoPeftModelForCausalLM reads every adapter that PEFT writes, and grows embeddings to the tokenizer."""
VLLM_CONFIG, VLLM_PEFT = "vllm 0.33.0 config/lora.py", "vllm 0.33.0 lora/peft_helper.py"
VLLM_NAMES, VLLM_MODELS = "vllm 0.33.0 lora/utils.py", "vllm 0.33.0 v1/worker/lora_model_runner_mixin.py"
VLLM_EXPERTS = "vllm 0.33.0 lora/lora_model.py"
SGLANG_MANAGER, SGLANG_LORA = "sglang 0.5.23 srt/lora/lora_manager.py", "sglang 0.5.23 srt/lora/lora.py"
SGLANG_UTILS = "sglang 0.5.23 srt/lora/utils.py"
CONVERTER = "llama.cpp 0b03adaa convert_lora_to_gguf.py"
GPT2_CONVERTER, LOADER = "llama.cpp 5535795b conversion/gpt2.py", "llama.cpp 215841fc src/llama-adapter.h"
VLLM_RANKS = (16, 32, 64, 128, 256, 320, 512)
"""The values of --max-lora-rank from its default on (VLLM_CONFIG)."""
VLLM_WITHOUT_LORA = frozenset({
    "BloomForCausalLM", "DbrxForCausalLM", "FalconForCausalLM", "FalconMambaForCausalLM", "GPT2LMHeadModel",
    "GPTJForCausalLM", "Mamba2ForCausalLM", "MambaForCausalLM", "StableLmForCausalLM", "Zamba2ForCausalLM",
})  # fmt: skip
"""Classes without SupportsLoRA (vllm 0.33.0 model_executor/models)."""
VLLM_FUSED_EXPERTS = ("gpt_oss", "qwen3_vl_moe", "qwen3_5_moe")
"""Beginnings of the model types whose classes say is_3d_moe_weight (vllm 0.33.0 model_executor/models)."""
SGLANG_TARGETS = frozenset({
    "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj",
    "q_a_proj", "kv_a_proj_with_mqa", "q_b_proj", "kv_b_proj", "wq_b", "wk", "weights_proj",
    "embed_tokens", "vocab_emb", "embeddings", "word_embeddings", "lm_head", "output", "unembed_tokens",
})  # fmt: skip
"""What get_normalized_target_modules and get_default_hidden_dim know (SGLANG_UTILS)."""
SGLANG_OWN_TARGETS = ("gemma3n", "gemma4", "laguna", "llama4", "nemotron_h", "qwen3_5")
"""Beginnings of the model types with a get_hidden_dim of their own (sglang 0.5.23 srt/models)."""


@dataclass(frozen=True)
class Reason:
    """Why a server cannot load a result as it was trained, and where that stands."""

    text: str
    source: str


@dataclass(frozen=True)
class Serving:
    """How a server loads a `result`: with these words on its command line, or not at all, for the reasons."""

    result: str
    server: str
    flags: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The value as plain JSON."""
        return asdict(self) | {"loads": not self.reasons}


@dataclass(frozen=True)
class Adapter:
    """What limits are about: PEFT's config, the kinds and names of adapted modules, new rows, the model."""

    config: LoraConfig
    architecture: str
    model_type: str
    kinds: frozenset[str]
    names: frozenset[str]
    new_rows: bool

    @property
    def ranks(self) -> list[int]:
        """Every rank that the config names."""
        return [self.config.r, *self.config.rank_pattern.values()]


Limits = Callable[[Adapter], Iterator[Reason]]


def adapter_serving(recipe: Recipe, tuned: PeftModel, *, new_rows: bool) -> tuple[Serving, ...]:
    """What loads the adapter of a recipe beside its base model, whose embeddings may have new rows."""
    adapter = _adapter(tuned, new_rows=new_rows)
    return tuple(
        Serving("adapter", server, () if reasons else _flags(recipe, server, adapter), reasons)
        for server in SERVERS
        for reasons in [tuple(LIMITS[server](adapter))]
    )


def merged_serving(recipe: Recipe) -> tuple[Serving, ...]:
    """What loads the merged model: an ordinary model of its base's architecture, whoever knows that."""
    return tuple(Serving("merged", server, _own_code(recipe, server)) for server in SERVERS)


def _adapter(tuned: PeftModel, *, new_rows: bool) -> Adapter:
    from peft.tuners.lora import LoraLayer

    base, config = tuned.get_base_model(), tuned.peft_config["default"]
    adapted = {name: part for name, part in base.named_modules() if isinstance(part, LoraLayer)}
    named = [*adapted, *(config.target_modules or ())]  # servers read the targets of the config, too
    return Adapter(
        config=config,
        architecture=type(base).__name__,
        model_type=str(base.config.model_type),
        kinds=frozenset(type(part.get_base_layer()).__name__ for part in adapted.values()),
        names=frozenset(name.rpartition(".")[2] for name in named),
        new_rows=new_rows,
    )


def _flags(recipe: Recipe, server: str, adapter: Adapter) -> tuple[str, ...]:
    """What a server's command says to load the adapter, beyond naming it."""
    rank = next(rank for rank in (*VLLM_RANKS, 0) if not rank or rank >= max(adapter.ranks))
    more = ["--max-lora-rank", str(rank)] if server == VLLM and rank > VLLM_RANKS[0] else []
    enable = ["--enable-lora"] if server in (VLLM, SGLANG) else []
    return (*enable, *more, *_own_code(recipe, server))


def _own_code(recipe: Recipe, server: str) -> tuple[str, ...]:
    own = {TRANSFORMERS: "trust_remote_code=True", VLLM: "--trust-remote-code", SGLANG: "--trust-remote-code"}
    return (own[server],) if recipe.own_code and server in own else ()


def _nothing(adapter: Adapter) -> Iterator[Reason]:
    yield from ()


def _vllm(adapter: Adapter) -> Iterator[Reason]:
    config = adapter.config
    if adapter.architecture in VLLM_WITHOUT_LORA:
        yield Reason(f"takes no adapter on {adapter.architecture}", VLLM_MODELS)
    if max(adapter.ranks) > VLLM_RANKS[-1]:
        yield Reason(f"takes ranks up to {VLLM_RANKS[-1]}, not {max(adapter.ranks)}", VLLM_CONFIG)
    for key in ("modules_to_save", "use_dora", "lora_bias", "use_bdlora"):
        if getattr(config, key):
            yield Reason(f"refuses {key}", VLLM_PEFT)
    if config.bias != "none":
        yield Reason(f"refuses bias: {config.bias}", VLLM_PEFT)
    yield from _weights_beside_lora(adapter, "refuses", VLLM_NAMES)
    if config.target_parameters and not adapter.model_type.startswith(VLLM_FUSED_EXPERTS):
        yield Reason(f"takes no target_parameters of '{adapter.model_type}' models", VLLM_EXPERTS)


def _sglang(adapter: Adapter) -> Iterator[Reason]:
    config = adapter.config
    if config.use_dora:
        yield Reason("refuses use_dora", SGLANG_MANAGER)
    for key in ("modules_to_save", "lora_bias", "use_bdlora"):
        if getattr(config, key):
            yield Reason(f"does not read {key}", SGLANG_LORA)
    if config.bias != "none":
        yield Reason(f"does not read bias: {config.bias}", SGLANG_LORA)
    yield from _weights_beside_lora(adapter, "drops", SGLANG_LORA)
    for key in ("use_rslora", "rank_pattern", "alpha_pattern"):
        if getattr(config, key):
            yield Reason(f"scales all of it by lora_alpha / r, whatever {key} says", SGLANG_LORA)
    if config.target_parameters:
        yield Reason("finds adapters by the names of modules, not target_parameters", SGLANG_LORA)
    unknown = sorted(adapter.names - SGLANG_TARGETS)
    if unknown and not (config.target_parameters or adapter.model_type.startswith(SGLANG_OWN_TARGETS)):
        yield Reason(f"does not know the size of {', '.join(unknown)} in target_modules", SGLANG_UTILS)
    if adapter.names & {"q_proj", "k_proj", "v_proj"} and not {"q_proj", "v_proj"} <= adapter.names:
        yield Reason("joins q_proj and v_proj, and needs both in target_modules", SGLANG_LORA)


def _llama_cpp(adapter: Adapter) -> Iterator[Reason]:
    config = adapter.config
    for key in ("modules_to_save", "use_dora", "lora_bias", "target_parameters", "use_bdlora"):
        if getattr(config, key):
            yield Reason(f"converts no {key}", CONVERTER)
    if config.bias != "none":
        yield Reason(f"converts no bias: {config.bias}", CONVERTER)
    yield from _weights_beside_lora(adapter, "converts no", CONVERTER)
    for key in ("use_rslora", "alpha_pattern"):
        if getattr(config, key):
            yield Reason(f"scales each module by lora_alpha / its rank, whatever {key} says", LOADER)
    if "Conv1D" in adapter.kinds:
        yield Reason("transposes adapters of Conv1D modules with their weights", GPT2_CONVERTER)


def _weights_beside_lora(adapter: Adapter, what: str, source: str) -> Iterator[Reason]:
    """Embeddings that an adapter brings along, whole or in part."""
    if adapter.new_rows and not adapter.config.modules_to_save:
        yield Reason(f"{what} embeddings that grew for added tokens", source)
    if adapter.config.trainable_token_indices:
        yield Reason(f"{what} trainable_token_indices", source)


LIMITS: dict[str, Limits] = {TRANSFORMERS: _nothing, VLLM: _vllm, SGLANG: _sglang, LLAMA_CPP: _llama_cpp}
"""Why each server would refuse an adapter, or answer otherwise than it was trained; PEFT itself takes all."""
