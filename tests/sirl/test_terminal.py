from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest

from sirl.errors import DataError
from sirl.terminal import plain

HOSTILE = "".join(
    map(chr, [*range(32), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x2028, 0xD800, 0xE0041])
)


def test_what_a_terminal_obeys_is_shown_instead() -> None:
    assert plain("\x1b[31mred\x07\x9b2J\u202egpj.exe") == r"\x1b[31mred\x07\x9b2J\u202egpj.exe"
    left = {character for character in plain(HOSTILE) if unicodedata.category(character)[0] == "C"}
    assert left == {"\t", "\n"}
    plain(HOSTILE).encode()  # no surrogate is left


def test_text_stays_as_it_is() -> None:
    text = "Müller\u2019s naïve 安全 🙂 \t80 % → 90 %\n\u0645\u0631 👩\u200d🔬"
    assert plain(text) == text


def test_errors_are_plain_and_one_line() -> None:
    assert (
        str(DataError("a\x1b]0;x\x07\nb", "Mend\x85 it\u202e")) == r"a\x1b]0;x\x07 b. Mend it\u202e"
    )


@pytest.mark.parametrize(
    "line", ["logging.warning('%s', text)", "logging.exception(text)", "raise ValueError(text)"]
)
def test_logs_and_tracebacks_are_plain(line: str) -> None:
    begin = "from sirl import terminal; import logging; terminal.begin('INFO', '%(message)s')"
    code = f"{begin}\ntext = chr(27) + '[31m' + chr(0x202e)\n{line}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert r"\x1b[31m\u202e" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
