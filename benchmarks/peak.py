"""Peak memory of what a benchmark runs."""

import threading
import time

import psutil


def added_memory(function, every):
    """Call a function: the most resident memory that it adds, bytes, sampled every so many seconds, and its seconds."""
    process, peak, running = psutil.Process(), [0], [True]
    before = process.memory_info().rss

    def watch():
        while running[0]:
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(every)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        function()
        seconds = time.perf_counter() - begun
    finally:
        running[0] = False
        watcher.join()
    return peak[0] - before, seconds
