"""The cookies of a directory while the kernel puts a listing of it together from answers to READDIR.

fs/fuse/readdir.c (Linux 6.18) keeps the names of an answer when they go on where its listing has come to,
whoever asked; who comes to the end completes it. A reader who begins is given a complete one only if nothing
has changed since it was begun. But one in the middle is given unasked what follows his cookie in it: names
older than his first answer, if a reader from before a change has completed it meanwhile.

Therefore a cookie carries a tag, the same for all who began between two changes: who began after a change
does not find his cookie in what is older, and asks us.

A listing that nobody completes would stay so for ever, as the kernel begins no other before. So when its
readers seem to be gone, somebody else is led on to it: one of his cookies is the one where it has come to.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from time import monotonic

TAG_BITS = 22
_TAGS = 1 << TAG_BITS
_GONE = 1.0  # seconds without a request of theirs

Named = tuple[int, bytes]  # the union's number, the name


class Cookies:
    """The cookies of one directory. `is_wrong`: something in the kernel's listing is, of which it does not
    know.
    """

    __slots__ = ("_end", "_has_changed", "_seen", "_tag", "_tags", "is_wrong")

    def __init__(self, tags: Iterator[int]) -> None:
        self._tags = tags
        self._tag = self._next_tag()
        self._has_changed = False
        self._end = 0  # where the kernel's listing has come to, if its readers take what they are given
        self._seen = 0.0  # when one of them was
        self.is_wrong = False

    def _next_tag(self) -> int:
        """Not 0, which is that of nobody: of the cookie to begin with."""
        return next(self._tags) % (_TAGS - 1) + 1

    def changed(self) -> None:
        """The directory has changed: who begins from now on must see it."""
        self._has_changed = True

    def misnumbered(self) -> None:
        """A name has another st_ino now."""
        self._has_changed = self.is_wrong = True

    def place(self, cookie: int) -> tuple[int, int]:
        """The number of the name that a reader has come to, and his tag."""
        if cookie:
            return cookie >> TAG_BITS, cookie % _TAGS
        if self._has_changed:
            self._has_changed = False
            self._tag = self._next_tag()
        return 0, self._tag

    def given(self, names: Sequence[Named], tag: int, following: Named | None) -> list[int]:
        """The cookies for an answer, for all `names` or all but the last; `following` comes next, if any."""
        cookies = [place << TAG_BITS | tag for place, _ in names]
        if self._end and self._end % _TAGS != tag and monotonic() - self._seen > _GONE:
            self._lead_on(names, following, cookies)
        return cookies

    def _lead_on(self, names: Sequence[Named], following: Named | None, cookies: list[int]) -> None:
        """Give the name where the listing ends the cookie that goes on with it. The last of an answer keeps
        its own, with which its reader comes back, unless there is nothing more.
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
        """These are given to a reader who has come to `cookie`; whether that completes the listing."""
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
