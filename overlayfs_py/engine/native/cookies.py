"""Directory cookies while the kernel assembles its cached listing from answers to READDIR (decision 0027).

fs/fuse/readdir.c (Linux 6.18) appends an answer to the cached listing when it continues where the listing
ends, whichever reader asked; the reader that reaches the end completes it. A reader at the start gets a
complete listing from the cache only if the directory has not changed since the listing was begun. But a
reader in the middle gets what follows its cookie in the cache without any request: names older than its first
answer, if a reader from before a change has completed the listing meanwhile.

Therefore a cookie carries a tag that all readers share that began between two changes. A reader that began
after a change does not find its cookie in an older listing, and sends a request.

A listing that no reader completes would stay incomplete for ever, since the kernel begins no other one
before. So when its readers seem to be gone, another reader is led on to it: it gets a cookie with which the
listing continues.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from time import monotonic

TAG_BITS = 22
_TAGS = 1 << TAG_BITS
_GONE = 1.0  # seconds without a request from its readers

Named = tuple[int, bytes]  # the union's number of the name, the name


class Cookies:
    """The cookies of one directory. `is_wrong`: the kernel's listing has a wrong number and must go."""

    __slots__ = ("_end", "_has_changed", "_seen", "_tag", "_tags", "is_wrong")

    def __init__(self, tags: Iterator[int]) -> None:
        self._tags = tags
        self._tag = self._next_tag()
        self._has_changed = False
        self._end = 0  # the cookie where the kernel's listing ends, if its readers accept their answers
        self._seen = 0.0  # when one of them sent a request
        self.is_wrong = False

    def _next_tag(self) -> int:
        """Return a new tag; not 0, which only the initial cookie has."""
        return next(self._tags) % (_TAGS - 1) + 1

    def changed(self) -> None:
        """Note a change of the directory: readers that begin from now on get a new tag."""
        self._has_changed = True

    def misnumbered(self) -> None:
        """Note that a name has another st_ino now."""
        self._has_changed = self.is_wrong = True

    def place(self, cookie: int) -> tuple[int, int]:
        """Return the number of the name that a reader has reached, and its tag."""
        if cookie:
            return cookie >> TAG_BITS, cookie % _TAGS
        if self._has_changed:
            self._has_changed = False
            self._tag = self._next_tag()
        return 0, self._tag

    def given(self, names: Sequence[Named], tag: int, following: Named | None) -> list[int]:
        """Return the cookies of an answer, for all `names` or all but the last; `following`: the next
        name.
        """
        cookies = [place << TAG_BITS | tag for place, _ in names]
        if self._end and self._end % _TAGS != tag and monotonic() - self._seen > _GONE:
            self._lead_on(names, following, cookies)
        return cookies

    def _lead_on(self, names: Sequence[Named], following: Named | None, cookies: list[int]) -> None:
        """Give the name at the end of the listing the cookie that continues it.

        The last name of an answer keeps its own cookie, with which the reader continues, unless no name
        follows.
        """
        place = self._end >> TAG_BITS
        before = sum(number <= place for number, _ in names)
        if before == 0 or (before == len(names) and following is not None and following[0] <= place):
            return
        if before < len(names) or following is None:
            cookies[before - 1] = self._end
        elif before > 1:
            cookies.pop()

    def answered(self, cookie: int, cookies: list[int]) -> bool:
        """Note the answer to a reader at `cookie`; whether it completes the kernel's listing."""
        end = self._end
        if not cookies:
            return cookie == end
        at = bisect_left(cookies, end)
        if cookie == end or (at < len(cookies) and cookies[at] == end):
            self._end = cookies[-1]
            self._seen = monotonic()
        elif cookie % _TAGS == end % _TAGS:
            self._seen = monotonic()
        return False
