"""What workers do in tests of the engine; they import it by name."""

import os
import signal
import time
from pathlib import Path


def work(task, room):
    """A task is (what, folder): a word for what happens."""
    what, folder = task
    if what == "fail":
        raise KeyError("nobody foresaw this")
    if what == "full":
        raise RuntimeError("not enough memory: you tried to allocate 9 GB")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "die once":
        marker = Path(folder, "died")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if what.startswith("large"):
        with open(Path(folder, "log"), "a") as log:
            log.write(f"+{what}\n")
        time.sleep(0.3)
        with open(Path(folder, "log"), "a") as log:
            log.write(f"-{what}\n")
    if what == "threads":
        import torch

        return torch.get_num_threads()
    return f"{what} {room.memory} {room.threads}"
