"""Acting as an ordinary user, in a process of its own."""

import os
from collections.abc import Callable

NOBODY = 65534


def as_user(number: int, action: Callable[[], object]) -> int:
    """Run `action` in a child as user and group `number`; its errno, 0 when it went well."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            action()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def as_nobody(action: Callable[[], object]) -> int:
    """As `as_user`, as one who owns nothing."""
    return as_user(NOBODY, action)
