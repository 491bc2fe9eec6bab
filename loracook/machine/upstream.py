"""Every private name of an upstream library that loracook relies on, but those that one_order.py overrides.

tests/machine/test_upstream.py notices when one of them goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from trl import SFTConfig, SFTTrainer


def trained_tokens(trainer: SFTTrainer) -> int:
    """The tokens that TRL has counted so far in training (trl 1.16, SFTTrainer)."""
    return int(trainer._total_train_tokens)


def set_trained_tokens(trainer: SFTTrainer, tokens: int) -> None:
    """Let TRL count on from `tokens`; it keeps no count in its checkpoints."""
    trainer._total_train_tokens = tokens


def load_finished(trainer: SFTTrainer, checkpoint: Path) -> None:
    """Put a trainer where training ended with this checkpoint (transformers 5.23, Trainer).

    `train` would take one more step from there, unless the epoch ended as well.
    """
    from transformers.trainer_callback import TrainerState

    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
        trainer._load_best_model()
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)


def leave_out_of_ddp(model: Module, names: Sequence[str]) -> None:
    """Let DistributedDataParallel pass over these parameters of a model (torch 2.13)."""
    from torch.nn.parallel import DistributedDataParallel

    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)


@contextmanager
def metrics_aside(trainer: SFTTrainer) -> Iterator[None]:
    """Let losses be computed that TRL's training metrics and count of tokens do not notice."""
    metrics, tokens = deepcopy(trainer._metrics["train"]), trained_tokens(trainer)
    try:
        yield
    finally:
        trainer._metrics["train"] = metrics
        set_trained_tokens(trainer, tokens)


def use_one_gpu(arguments: SFTConfig) -> None:
    """Let a process train on its own GPU alone (transformers 5.23, TrainingArguments).

    Where it sees several, it would take as many times the rows of a batch, which TRL refuses (trl 1.16).
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)


def on_device(trainer: SFTTrainer, batch: dict[str, Any]) -> Any:
    """A collated batch, a dictionary of tensors, on the trainer's device (transformers, Trainer)."""
    return trainer._prepare_inputs(batch)


def largest_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The largest absolute value of each tensor, in one fused kernel; NaN and infinity come through."""
    import torch

    return list(torch._foreach_norm(tensors, float("inf")))


def storage_id(storage: torch.UntypedStorage) -> int:
    """What identifies a tensor's storage for as long as it lives."""
    return int(storage._cdata)


def own_tensors(module: Module) -> Iterable[dict[str, Tensor | None]]:
    """A module's own parameters and buffers by name, as the dictionaries that torch keeps them in."""
    return module._parameters, module._buffers


def template_variables(template: str | None) -> list[str]:
    """The names that a chat template reads and does not set itself (transformers, chat_template_utils).

    Compiling a template computes the constants in it, so this is called within limits alone.
    """
    from transformers.utils.chat_template_utils import _get_template_variables

    return sorted(_get_template_variables(template))


def cpu_has_bfloat16() -> bool:
    """Whether oneDNN has bfloat16 kernels for this CPU, which need AVX-512; without oneDNN, so assumed."""
    import torch

    mkldnn = torch.backends.mkldnn.is_available()
    return not mkldnn or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fake_tensor_mode() -> Any:
    """torch's mode for tensors that have a shape, a dtype and a device, but no data.

    The product of experts has kernels for every dtype, but one for bfloat16 alone without data (torch 2.13).
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    class WithExperts(FakeTensorMode):  # torch demands a subclass
        def dispatch(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0917  torch's signature
            if op is not torch.ops.aten._grouped_mm.default or args[0].dtype == torch.bfloat16:
                return super().dispatch(op, types, args, kwargs)
            left, right = (factor.to(torch.bfloat16) for factor in args[:2])
            return super().dispatch(op, types, (left, right, *args[2:]), kwargs).to(args[0].dtype)

    return WithExperts(allow_non_fake_inputs=True)


def fake_cpu_tensor(mode: Any, tensor: Tensor) -> Tensor:
    """A tensor's stand-in without data, on the CPU."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    return FakeTensor(mode, tensor.detach().to("meta"), torch.device("cpu"))


def dispatch_mode() -> Any:
    """The base class of torch's modes that see every operator."""
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode


def tree_leaves(tree: Any) -> list[Any]:
    """The values at the leaves of nested containers."""
    from torch.utils._pytree import tree_leaves

    return list(tree_leaves(tree))


def attention_implementation(model: Any) -> str:
    """The attention implementation that a model runs with."""
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


def set_attention_implementation(model: Any, name: str) -> None:
    """Let a model run with an attention registered under `name`, without the checks for kernels."""
    model.config.get_text_config(decoder=True)._attn_implementation_internal = name


def choose_implementations(config: Any, attention: str | None) -> None:
    """Let a model and its parts run with an attention, None for transformers' choice, not by its file.

    A config.json may name code on the hub there. The experts are left to transformers.
    """
    config._attn_implementation = attention
    config._experts_implementation = None


def takes_any_attention(model: Any) -> bool:
    """Whether a model runs with whatever attention is registered."""
    return bool(model._supports_attention_backend)


def loss_gradient_tile(tile: Tensor, losses: Tensor, ids: Tensor, **facts: Any) -> None:
    """Turn a tile of logits into its gradient in place, as TRL's fused head does without Triton.

    Source: trl 1.16, trl/kernels/chunked_logprob.py.
    """
    from trl.kernels import chunked_logprob

    chunked_logprob._backward_tile(tile, 0, ids, losses, losses, losses, losses, **facts)


def add_product(gradient: Tensor, tile: Tensor, weight: Tensor) -> None:
    """Add `tile @ weight` to a float32 gradient, as TRL's fused head does."""
    from trl.kernels import chunked_logprob

    chunked_logprob._addmm_fp32(gradient, tile, weight)


def dataset_fingerprint(rows: Any) -> str | None:
    """What datasets takes for the identity of a data set's content; None for a streamed one."""
    return getattr(rows, "_fingerprint", None)


def dataset_builders() -> frozenset[str]:
    """The names that datasets reads as a file format in place of a data set on the hub."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return frozenset(_PACKAGED_DATASETS_MODULES)


def dequantizes(method: str) -> bool:
    """Whether transformers can turn weights quantized by a method back into plain ones."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
    from transformers.quantizers.base import HfQuantizer

    return AUTO_QUANTIZER_MAPPING[method]._dequantize is not HfQuantizer._dequantize


def saved_weights(model: Any) -> dict[str, Tensor]:
    """The weights of a transformers model under the names that save_pretrained gives them."""
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    weights = remove_tied_weights_from_state_dict(model.state_dict(), model)
    return dict(revert_weight_conversion(model, weights))


def saved_names(model: Any) -> dict[str, str]:
    """The names that save_pretrained gives the weights of a transformers model which it saves as they are."""
    from transformers.core_model_loading import revert_weight_conversion

    weights = dict(model.state_dict())
    saved = {id(weight): name for name, weight in revert_weight_conversion(model, dict(weights)).items()}
    return {name: saved[id(weight)] for name, weight in weights.items() if id(weight) in saved}


def causal_class(config: Any) -> str:
    """The name of the class of causal language models that transformers has for a config."""
    from transformers import AutoModelForCausalLM

    return str(AutoModelForCausalLM._model_mapping[type(config)].__name__)


def forget_quantized_file(model: Any) -> None:
    """Let save_pretrained write a dequantized model as it is (transformers 5.23).

    Where the file that it came from was quantized, saving would undo what loading did: FP8 is quantized
    again, and bitsandbytes raises NotImplementedError.
    """
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config
    model._weight_conversions = None
