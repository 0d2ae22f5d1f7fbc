"""Run one command and write down what it cost: `launch.py FILE COMMAND...`.

A process of its own, and a small one: the kernel counts the memory of whoever starts a program as that
program's, so the benchmark itself must not start what it measures.
"""

import os
import sys
import time


def main() -> int:
    started = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    with open(sys.argv[1], "w") as out:
        print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=out)
    return 0 if status == 0 else 1


sys.exit(main())
