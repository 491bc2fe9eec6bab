"""The command `loracook`, and `python -m loracook`: signals are ours before anything else is imported."""

import os
import sys

from loracook.machine.signals import stopping_on_signals


def open_what_is_closed() -> None:
    """Give a command that was started without standard streams empty ones, as `nohup` and cron may."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process lives


def main() -> None:
    """Run the command line and exit with one of the documented codes."""
    open_what_is_closed()
    with stopping_on_signals():
        from loracook.cli import main as run_command

        run_command()


if __name__ == "__main__":
    main()
