"""How long `import invsr` takes against `import torch`: medians of alternating fresh processes.

python -m benchmarks.speed.import_time [--runs 7]
"""

import statistics
import subprocess
import sys
import time

from benchmarks.arguments import parser


def seconds(module):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - begin


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=int, default=7)
    options = arguments.parse_args()
    seconds("invsr")  # compiled files and disk caches
    taken = {name: [] for name in ("torch", "invsr")}
    for _ in range(options.runs):
        for name, values in taken.items():
            values.append(seconds(name))
    torch, invsr = (statistics.median(values) for values in taken.values())
    print(f"import torch {torch:.2f} s, import invsr {invsr:.2f} s, ratio {invsr / torch:.2f}")


if __name__ == "__main__":
    main()
