"""The command `loracook`, and `python -m loracook`: signals are ours before anything else is imported."""

from loracook.machine.signals import stopping_on_signals


def main() -> None:
    """Run the command line and exit with one of the documented codes."""
    with stopping_on_signals():
        from loracook.cli import main as run_command

        run_command()


if __name__ == "__main__":
    main()
