"""A command of loracook that ends with the process that started it: a trial of a sweep.

`python -m loracook.cli.sweep_trial run …` is `loracook run …` which stops, as on SIGTERM, when its standard
input ends. A pipe ends however the process at its other end has ended, by kill -9, too.
"""

import os
import signal
import sys
import threading

from loracook.__main__ import main


def _stop_at_the_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_the_end, daemon=True).start()
    main()
