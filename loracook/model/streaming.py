"""One answer of a loaded model, its text given as it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loracook.model.generation_config import own_settings_aside
from loracook.model.inference import Generated, end_tokens, generated, generation_arguments, up_to_end

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def stream(
    causal: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    ends: Collection[int],
    settings: Mapping[str, Any],
    seed: int,
    on_text: Callable[[str], None],
    stopped: Callable[[], bool],
) -> Generated:
    """The answer to a prompt (token ids), as `generate` gives it alone; up to where `stopped` becomes true.

    `on_text` gets its text in parts, none of them with half a character; with beams all of it at the end.
    """
    import torch
    from transformers import set_seed

    eos = end_tokens(causal, ends)
    ids = torch.tensor([list(prompt)], device=causal.device)
    writer = _Writer(tokenizer, eos, on_text)
    streamed = {} if settings.get("num_beams", 1) > 1 else {"streamer": writer}
    set_seed(seed)
    with torch.no_grad(), own_settings_aside(causal):
        output = causal.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            stopping_criteria=[lambda ids, *_, **__: torch.full(ids.shape[:1], stopped(), device=ids.device)],
            **streamed,
            **generation_arguments(tokenizer, settings, eos),
        )
    answer = generated(tokenizer, output[0, len(prompt) :].tolist(), eos=eos, settings=settings)
    writer.write(answer.ids)
    return answer


class _Writer:
    """Gives the text of tokens as they come, a streamer for transformers' `generate`.

    transformers' TextStreamer decodes every line by itself, which takes the space from the beginning of one
    with tokenizers such as Llama's, and holds text back to the next space.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, eos: Collection[int], on_text: Callable[[str], None]
    ) -> None:
        self.tokenizer, self.eos, self.on_text = tokenizer, eos, on_text
        self.ids: list[int] | None = None
        self.written = 0

    def put(self, value: Tensor) -> None:
        """Take the prompt, which comes first, then new tokens."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.flatten().tolist()
        text = self.tokenizer.decode(up_to_end(self.ids, self.eos)[0])
        self._give(text.rstrip("\ufffd"))

    def end(self) -> None:
        """Leave the rest to `write`, which knows where the answer ends."""

    def write(self, ids: Sequence[int]) -> None:
        """Give what is left of a whole answer."""
        self._give(self.tokenizer.decode(ids))

    def _give(self, text: str) -> None:
        if len(text) > self.written:
            self.on_text(text[self.written :])
            self.written = len(text)
