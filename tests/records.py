"""Records of finished stages, as a run writes them."""

from typing import Any


def record(**facts: Any) -> dict[str, Any]:
    """A record with these facts, and nothing else to say."""
    empty = {key: {} for key in ("sections", "origins", "result", "before", "versions", "files")}
    return {"stage": "train", "digest": "", "name": "soup", "finished": "", "seconds": 0.0} | empty | facts
