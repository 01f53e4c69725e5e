"""Runs commands of invsr in forks of one process that has imported everything, and kills them at a given moment.

One request a line, as JSON: ``{"words": [...], "folder": ..., "signal": ..., "seconds": ...}`` kills after so long;
with "event" instead, when the command is about to open, rename or remove a file in the folder for the n-th time, or
``"pause"`` seconds later. ``"limit"`` bounds the size of files (bytes), as a full disk does; with ``"vanish"`` the
folder is renamed at the event instead of a signal. The answer, one line: exit code (negative: the signal), standard
output and error, seconds, and the number of events.
"""

import io
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time

EVENTS = ("open", "os.rename", "os.remove")
MOST_SECONDS = 60


def watch_writing(request, pipe):
    """Kill this process at the n-th event, or report every event."""
    seen = 0
    inside = os.path.join(request["folder"], "")

    def hook(event, arguments):
        nonlocal seen
        if event not in EVENTS or not str(arguments[0]).startswith(inside):
            return
        if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        seen += 1
        os.write(pipe, b".")
        if seen != request.get("event"):
            return
        if request.get("vanish"):
            os.rename(request["folder"], request["vanish"])
        elif "pause" in request:
            os.write(pipe, b"!")
        else:
            os.kill(os.getpid(), request["signal"])

    sys.addaudithook(hook)


def run_command(request, pipe, output, error):
    """In the fork: the command line, as a process of its own would run it."""
    from invsr.app.command_line import main

    os.dup2(output, 1)
    os.dup2(error, 2)
    if "limit" in request:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], resource.RLIM_INFINITY))
    sys.argv = ["invsr", *request["words"]]
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    watch_writing(request, pipe)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_and_kill(child, events, request):
    """The status of the child, and how many events it reported."""
    start, kill_at, count = time.monotonic(), request.get("seconds"), 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            while select.select([events], [], [], 0)[0] and (text := os.read(events, 4096)):
                count += text.count(b".")
            return os.waitstatus_to_exitcode(status), count
        now = time.monotonic() - start
        if kill_at is not None and now >= kill_at:
            os.kill(child, request["signal"])
            kill_at = None
        if now > MOST_SECONDS:
            os.kill(child, signal.SIGKILL)
        wait = 0.005 if kill_at is None else min(0.005, max(0.0, kill_at - now))
        if select.select([events], [], [], wait)[0]:
            text = os.read(events, 4096)
            count += text.count(b".")
            if b"!" in text:
                kill_at = time.monotonic() - start + request["pause"]


def serve():
    # What the commands import when they run, so that a fork need not.
    import lightning_fabric
    import torch

    import invsr.app.benchmark
    import invsr.app.demo
    import invsr.examples
    import invsr.pipeline.run
    import invsr.report.plot
    import invsr.training.denoiser
    import invsr.training.loop
    import invsr.training.solver

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM: before and after the command, nothing is to be tidied
    invsr.training.loop.LOG_EVERY = 1
    head = invsr.examples.example(side=16)
    invsr.app.demo.example, invsr.app.demo.INFARCT = lambda: head, (8, 8, 8)
    invsr.report.plot.compare({"head": head}).savefig(io.BytesIO())  # loads the fonts
    del lightning_fabric
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile("w+b") as output, tempfile.TemporaryFile("w+b") as error:
            events, pipe = os.pipe()
            start = time.monotonic()
            child = os.fork()
            if not child:
                run_command(request, pipe, output.fileno(), error.fileno())
            os.close(pipe)
            code, count = wait_and_kill(child, events, request)
            os.close(events)
            seconds = time.monotonic() - start
            said = []
            for file in (output, error):
                file.seek(0)
                said.append(file.read().decode())
        answer = {"code": code, "out": said[0], "err": said[1], "seconds": seconds, "events": count}
        sys.__stdout__.write(json.dumps(answer) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    serve()
