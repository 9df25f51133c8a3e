"""A terminal that never makes anybody wait."""

import os
import pty
import time
from collections.abc import Callable
from io import TextIOWrapper

from llmtab.live.screen import ENOUGH, Screen


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def pipe() -> tuple[int, TextIOWrapper]:
    reads, writes = os.pipe()
    return reads, os.fdopen(writes, "w", encoding="utf-8")


def test_what_is_written_arrives_in_order() -> None:
    """Text leaves as it was written, when it is flushed, and all of it before the screen is closed."""
    reads, file = pipe()
    screen = Screen(file)
    for number in range(100):
        screen.write(f"{number} é\n")
        screen.flush()
    screen.close()
    file.close()
    with os.fdopen(reads, encoding="utf-8") as got:
        assert got.read().splitlines() == [f"{number} é" for number in range(100)]


def test_a_stuck_terminal_makes_nobody_wait() -> None:
    """Nothing is read at the other end: writing returns at once, the screen is busy, and memory has a bound."""
    reads, file = pipe()
    screen, began = Screen(file), time.monotonic()
    for _ in range(100):
        screen.write("x" * 100_000)
        screen.flush()
    assert time.monotonic() - began < 0.5
    assert screen.busy
    assert sum(map(len, screen._waiting)) <= 2 * ENOUGH
    screen.close()
    assert time.monotonic() - began < 2
    os.close(reads)
    until(lambda: not screen._thread.is_alive())  # its write fails, and it ends without a word
    file.close()


def test_it_looks_like_its_file() -> None:
    """A console asks whether it is a terminal and what it can encode: the answers are the file's."""
    ours, its = pty.openpty()
    with os.fdopen(its, "w", encoding="utf-8") as file:
        screen = Screen(file)
        assert screen.isatty()
        assert (screen.encoding.lower(), screen.fileno()) == ("utf-8", its)
        screen.write("hello")
        assert not screen.busy
        screen.flush()
        until(lambda: not screen.busy)
        assert os.read(ours, 100) == b"hello"
        screen.close()
    os.close(ours)
