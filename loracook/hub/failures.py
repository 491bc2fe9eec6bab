"""What an error of huggingface_hub means: transient or final, unreachable or refused, and in which words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

TRANSIENT = {408, 409, 412, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which a retry may succeed; 409 and 412 mean that somebody else was writing."""

MALFORMED = (AttributeError, LookupError, TypeError)
"""What reading an answer raises that is JSON but lacks what huggingface_hub and we take out of it."""


def is_transient(error: BaseException | None) -> bool:
    """Whether a retry may succeed."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    if isinstance(error, OfflineModeIsEnabled):
        return False
    # Errors of the HTTP client and of Xet, and a gateway's HTML page in place of JSON.
    if isinstance(error, HTTPError | ConnectionError | TimeoutError | json.JSONDecodeError):
        return True
    return error is not None and is_transient(error.__cause__)


def retry_after(error: BaseException) -> float:
    """The seconds after which the hub asks to try again (RFC 9110, Retry-After); 0 where it does not say."""
    answer = next(_http_errors(error), None)
    written = answer.response.headers.get("retry-after", "") if answer else ""
    if written.isascii() and written.isdigit():
        return float(written)
    try:
        return max((parsedate_to_datetime(written) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def description(error: BaseException) -> str | None:
    """The failure of the hub or the network as a message; None when the error is neither's."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        response, request = error.response, error.response.request
        reason = error.server_message or response.reason_phrase
        return f"the hub answered {response.status_code} to {request.method} {request.url.path}: {reason}"
    if is_transient(error):
        reason = str(error.__cause__ or error or type(error).__name__)
        hint = "; to upload without Xet, set HF_HUB_DISABLE_XET=1" if "/xet-" in reason else ""
        return f"the hub cannot be reached: {reason}{hint}"
    if isinstance(error, MALFORMED):
        said = f"{type(error).__name__}: {error}"
        return f"the hub's answer is not what its API promises ({said}); check HF_ENDPOINT and the proxy"
    if isinstance(error, ValueError | RuntimeError):
        return f"talking to the hub failed: {error}"
    return str(error) if isinstance(error, OSError) else None


def rejection(error: BaseException) -> HfHubHTTPError | None:
    """The HTTP error with which the hub refused for good (401, 403, 404 …), None when it did not."""
    return next((answer for answer in _http_errors(error) if not is_transient(answer)), None)


def unreachable(error: BaseException) -> str | None:
    """Why the hub could not be asked, in a few words; None when it refused, or is not the cause."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if rejection(error):
        return None
    if answer := next(_http_errors(error), None):
        return f"the hub returned HTTP {answer.response.status_code}"
    offline = LocalEntryNotFoundError | OfflineModeIsEnabled
    lost = any(isinstance(cause, offline) or is_transient(cause) for cause in _chain(error))
    return "the hub cannot be reached" if lost else None


def _http_errors(error: BaseException) -> Iterator[HfHubHTTPError]:
    from huggingface_hub.errors import HfHubHTTPError

    return (cause for cause in _chain(error) if isinstance(cause, HfHubHTTPError))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, then its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
