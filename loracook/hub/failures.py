"""What can go wrong between here and the hub: which of it may pass, and how it is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

PASSING = {408, 409, 412, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which another try may succeed; 409 and 412 say that somebody else was writing."""


def passing(error: BaseException | None) -> bool:
    """Whether another try may succeed."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in PASSING
    if isinstance(error, OfflineModeIsEnabled):
        return False
    # The errors of the HTTP client and of Xet, and a gateway's page in place of an answer.
    if isinstance(error, HTTPError | ConnectionError | TimeoutError | json.JSONDecodeError):
        return True
    return error is not None and passing(error.__cause__)


def reason(error: BaseException) -> str | None:
    """What the hub or the network did wrong, in a sentence; None where neither did."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        answer, request = error.response, error.response.request
        told = error.server_message or answer.reason_phrase
        return f"the hub answered {answer.status_code} to {request.method} {request.url.path}: {told}"
    if passing(error):
        told = str(error.__cause__ or error or type(error).__name__)
        way_out = "; HF_HUB_DISABLE_XET=1 uploads without Xet" if "/xet-" in told else ""
        return f"the hub cannot be reached: {told}{way_out}"
    return str(error) if isinstance(error, OSError | ValueError | RuntimeError) else None


def refusal(error: BaseException) -> HfHubHTTPError | None:
    """The hub's own no, which stands however often it is asked; None where it was not heard."""
    from huggingface_hub.errors import HfHubHTTPError

    answers = (found for found in _chain(error) if isinstance(found, HfHubHTTPError))
    return next((answer for answer in answers if answer.response.status_code not in PASSING), None)


def unheard(error: BaseException) -> str | None:
    """Why the hub said nothing that counts, in a few words; None where it did, or was not to blame."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if refusal(error):
        return None
    answers = (found for found in _chain(error) if isinstance(found, HfHubHTTPError))
    if answer := next(answers, None):
        return f"the hub answers {answer.response.status_code} for now"
    silent = LocalEntryNotFoundError | OfflineModeIsEnabled
    lost = any(isinstance(found, silent) or passing(found) for found in _chain(error))
    return "the hub cannot be reached" if lost else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of, one after the other."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
