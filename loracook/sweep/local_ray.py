"""Ray on this machine for as long as a sweep runs: quiet, and reached from this machine alone."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from loracook.machine import signals

ADDRESS = "RAY_ADDRESS"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # of results that say nothing new
}
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on the loopback interface alone, on Linux, too
    "RAY_AUTH_MODE": "token",  # keeps other users of this machine out
    "RAY_kill_child_processes_on_worker_exit": "false",  # they stop by themselves, with a checkpoint
}
"""Settings that Ray reads from the environment alone, some of them while it is imported."""


def prepare() -> None:
    """Set what Ray reads from the environment; to be called before it is imported."""
    os.environ |= SETTINGS
    if not os.environ.get(ADDRESS):
        os.environ |= LOCAL | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def started() -> Iterator[None]:
    """Ray with the cores and GPUs of this machine; with RAY_ADDRESS the cluster there."""
    import ray

    handlers = {number: signal.getsignal(number) for number in signals.SIGNALS}
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    with ExitStack() as until_done:
        if not os.environ.get(ADDRESS):
            # In a folder of its own, whose path is short enough for sockets.
            folder = until_done.enter_context(
                tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            )
            options |= {"address": "local", "num_cpus": os.cpu_count(), "include_dashboard": False}
            options |= {"_temp_dir": folder}
        until_done.callback(ray.shutdown)
        ray.init(**options)
        for number, handler in handlers.items():  # which Ray replaces
            signal.signal(number, handler)
        yield


def default_gpus() -> int:
    """The GPUs of a trial of a sweep that does not say it: one where Ray, which has started, has any."""
    import ray

    return min(int(ray.cluster_resources().get("GPU", 0)), 1)
