"""Acting as an ordinary user who owns nothing, in a process of its own."""

import os
from collections.abc import Callable

NOBODY = 65534


def as_nobody(action: Callable[[], object]) -> int:
    """Run `action` in a child as an ordinary user; its errno, 0 when it went well."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
