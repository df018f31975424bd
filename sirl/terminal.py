"""What reaches a terminal or a log: text of models, servers and files is made plain here, and here
alone."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from types import TracebackType

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline; ESC begins sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the direction of what follows
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # separators, marks and tags
    "\ud800-\udfff]"  # no terminal can be sent one
)


def plain(text: str) -> str:
    """Text of models, servers and files made safe to show: what a terminal obeys instead of showing
    becomes an escape that is seen, such as `\\x1b`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def begin(level: str, form: str) -> None:
    """Sends this process's log to standard error, and its tracebacks, all of it plain."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain(form, datefmt="%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
    sys.excepthook = show_traceback


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Python's excepthook, plain."""
    sys.stderr.write(plain("".join(traceback.format_exception(kind, error, trace))))
