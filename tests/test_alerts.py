"""Alerts: they leave by webhook or command, are tried again, and never hold anybody up."""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from budget_helpers import need
from llmtab.budgets.alerts import QUEUED, Alerts
from llmtab.budgets.limits import Limit, limit
from llmtab.budgets.notices import Notices
from llmtab.budgets.store import Embedded

MESSAGE = {"event": "soft_limit", "limit": "day", "spent": Decimal("0.5")}


class Hook(HTTPServer):
    """A webhook that answers with the statuses it is told, then 200."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.statuses: list[int] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.headers["x-token"], json.loads(body)))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_gets_json_and_is_tried_again(hook: Hook) -> None:
    """A server that fails twice gets the message a third time, once."""
    hook.statuses = [500, 503]
    url = f"http://127.0.0.1:{hook.server_port}/x"
    alerts = Alerts({"webhook": url, "headers": {"x-token": "t"}}, pause=0.01)
    began = time.perf_counter()
    alerts.send(MESSAGE)
    assert time.perf_counter() - began < 0.1
    deadline = time.monotonic() + 5
    while len(hook.got) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    alerts.close()
    assert hook.got == [("t", {"event": "soft_limit", "limit": "day", "spent": 0.5})] * 3


def test_a_command_gets_the_message_on_its_input(tmp_path: Path) -> None:
    """The command reads one JSON object."""
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    alerts = Alerts({"command": [sys.executable, "-c", code]})
    alerts.send(MESSAGE)
    alerts.close(5)
    assert json.loads((tmp_path / "got").read_text())["event"] == "soft_limit"


def test_a_door_that_stays_shut_is_said_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """After a few tries the message is given up, with a word in the log that tells no secret of the address."""
    caplog.set_level(logging.WARNING, "llmtab")
    alerts = Alerts({"webhook": "http://127.0.0.1:1/secret"}, pause=0.001)
    alerts.send(MESSAGE)
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    alerts.close()
    assert "did not leave" in caplog.text
    assert "secret" not in caplog.text


def test_a_flood_drops_the_oldest() -> None:
    """Memory has a bound; what is dropped is counted."""
    alerts = Alerts({"command": [sys.executable, "-c", "import time; time.sleep(0.3)"]})
    for _ in range(QUEUED + 50):
        alerts.send(MESSAGE)
    assert alerts.dropped >= 49
    alerts._queue.clear()
    alerts.close()


def test_without_doors_nothing_runs() -> None:
    """No thread is started where there is nowhere to send to."""
    alerts = Alerts({})
    alerts.send(MESSAGE)
    assert alerts._thread is None
    alerts.close()


NOON = 1_800_014_400.0


class Told:
    """A limit in use: what is told of it."""

    def __init__(self, **spec: Any) -> None:
        self.sent: list[str] = []
        self.limit: Limit = limit({"limit": "100 tokens per hour", "window": "sliding", **spec})
        self.store, self.notices = Embedded(), Notices(lambda facts: self.sent.append(facts["event"]))

    def spend(self, amount: int, at: float) -> None:
        self.store.charge(need(amount, self.limit), at)
        state = self.store.state(self.limit, "", at)
        if self.limit.soft is not None and state.spent >= self.limit.soft:
            self.notices.soft(self.limit, "", state, at)
        self.notices.tick(self.store, at)

    def refuse(self, amount: int, at: float) -> None:
        denied = self.store.reserve_now("x", need(amount, self.limit), at).denied
        assert denied is not None
        self.notices.hard(denied, at)
        self.notices.tick(self.store, at + 1)


@pytest.mark.parametrize(("spent", "asked"), [(99, 10), (50, 60), (0, 101)])
def test_a_sliding_window_that_refuses_says_so_once_in_its_length(spent: int, asked: int) -> None:
    """However often it does, and however little of it is spent; it is over when the spending has left it."""
    told = Told()
    told.spend(spent, NOON)
    for minute in range(1, 59):
        told.refuse(asked, NOON + 60 * minute)
    assert told.sent == ["hard_limit"]
    told.notices.tick(told.store, NOON + 2 * 3600)
    assert told.sent == ["hard_limit", "recovered"]


def test_a_sliding_window_in_use_does_not_go_up_and_down() -> None:
    """Spending that stays about the soft limit is told of once; once it is well below, it may be told again."""
    told = Told(soft="82%")
    for minute in range(240):
        told.spend(0 if minute % 3 else 4, NOON + 60 * minute)  # 80 or 84 at any time
    assert told.sent == ["soft_limit"]
    told.spend(0, NOON + 3 * 86400)
    assert told.sent == ["soft_limit", "recovered"]
    told.spend(85, NOON + 3 * 86400)
    assert told.sent == ["soft_limit", "recovered", "soft_limit"]
