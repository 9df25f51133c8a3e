"""A WebSocket being observed: `feed` it each message, and the responses that are over come out, one by one.

Knows that one socket carries many billed responses, how they are told apart and which frame asked for each, by the
rules of their dialects. Must not know mitmproxy, providers, prices, files or clocks. What a client asked is kept only
as short words (its model, its tools), never its texts.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final

from llmtab.estimates.asking import measured
from llmtab.events import BIG, parse
from llmtab.extract import Fold, Reading
from llmtab.observation import Answer, Call, How, Observation
from llmtab.profiles import Claim
from llmtab.profiles.compiled import Dialect
from llmtab.profiles.refs import Scope, walk
from llmtab.profiles.sockets import Rules, holds, rules_of, words_of
from llmtab.record import new_id
from llmtab.sockets.account import Account
from llmtab.usage import Quantity

MOST: Final = 256
"""Responses under way at once on one socket, and ids of finished ones that are remembered: no client has as many."""
SHORT: Final = 256
"""Characters of a text in a request that may be a name; elements of a list that are looked at."""
DEEP: Final = 5


class Tabs:
    """All responses of one dialect on one socket."""

    def __init__(self, socket: "Socket", dialect: Dialect) -> None:
        self.rules: Final[Rules] = rules_of(dialect)
        self._socket = socket
        self._dialect = dialect
        self._setup: dict[str, Any] = {}
        self._session = Fold(dialect, self._scope(self._setup))
        self._waiting: dict[str | None, deque[Account]] = {}
        self._open: dict[str, Account] = {}
        self._current: dict[str | None, Account] = {}
        """The response under way in each lane."""
        self._done: dict[str, None] = {}
        self._recent: Account | None = None
        self._totals: dict[str, Quantity] = {}
        if self.rules.emit == "session":
            self._current[None] = self._recent = Account(socket.call, self._fold({}), None, None)

    def wants(self, words: list[bytes], *, asked: bool) -> bool:
        """Whether a frame of these words, of the client (`asked`) or of the server, has to be parsed."""
        if asked:
            return self.rules.asking.hit(words)
        recent = self._recent
        return (recent is not None and not recent.searched) or len(self._open) > 1 or self.rules.answering.hit(words)

    def pass_by(self, data: bytes, words: list[bytes], now: float, *, asked: bool) -> None:
        """A frame of these words that nobody wants. What the client sends between two questions belongs to the session
        alone."""
        recent = self._recent
        if recent is None:
            return
        if not asked:
            recent.pass_by(len(data), now)
            self._hear(recent, data, words)
        elif self.rules.emit == "session":
            recent.call.request_bytes += len(data)

    def _hear(self, account: Account, data: bytes, words: list[bytes]) -> None:
        if self.rules.telling is not None and self.rules.telling.hit(words):
            account.hear(data)

    def asked(self, frame: Any, data: bytes, now: float) -> Iterator[Observation]:
        """A frame of the client. Of what has no ids one response is asked for at a time: further frames join it."""
        rules, scope = self.rules, self._session.scope
        if holds(rules.setup, scope, frame):
            self._setup = {**self._setup, **_slim(frame)}
        if rules.emit == "session":
            return self.pass_by(data, [], now, asked=True)
        if not holds(rules.asks, scope, frame):
            return
        lane, key = rules.lane(frame), rules.key(frame)
        queue = self._waiting.setdefault(lane, deque())
        if key is not None and (key in self._open or key in self._done):
            return
        if not rules.keyed and queue:
            queue[-1].call.request_bytes += len(data)
            return
        account = self._account(frame, data, lane, key, now)
        self._socket.asked = account.call
        if key is None:
            queue.append(account)
        else:
            self._open[key] = self._current[lane] = self._recent = account
        yield from self._crowded(now)

    def answered(self, event: Any, data: bytes, now: float) -> Iterator[Observation]:
        """An event of the server: what it ends comes out."""
        for parts in self._dialect.unwrap:
            if (inner := walk(event, parts)) is not None:
                event = inner
                break
        account = yield from self._find(event, now)
        if account is None:
            if holds(self.rules.setup, self._session.scope, event):
                self._session.feed(event)
            return
        self._recent = account
        if self.rules.telling is not None and len(data) <= BIG:
            self._hear(account, data, words_of(data))
        if account.feed(event, len(data), now):
            yield self._settle(account, "complete", now)
        yield from self._crowded(now)

    def _find(self, event: Any, now: float) -> Generator[Observation, None, Account | None]:
        """Returns the response that an event belongs to, a new one where it opens one, or None."""
        rules, scope = self.rules, self._session.scope
        lane, key = rules.lane(event), rules.key(event)
        if rules.emit == "session":
            return self._current.get(None)
        if key is not None:
            account = self._open.get(key)
            if account is None and key not in self._done and holds(rules.opens, scope, event):
                account = self._open[key] = self._current[lane] = self._take(lane, now)
                account.key = key
            return account
        current = self._current.get(lane)
        if not rules.keyed:
            return (yield from self._next(event, current, now))
        if holds(self._dialect.error, scope, event):
            queue = self._waiting.get(lane)
            refused = queue.popleft() if queue else current if rules.laned else None
            if refused is not None:
                refused.over = True
            return refused
        return current if rules.laned else None

    def _next(self, event: Any, current: Account | None, now: float) -> Generator[Observation, None, Account | None]:
        """The one response under way, where responses have no ids; the next one once that has ended."""
        if current is not None:
            if not (current.fold.ended and holds(self._dialect.begin, self._session.scope, event)):
                return current
            yield self._settle(current, "complete", now)
        if not holds(self.rules.opens, self._session.scope, event):
            return None
        account = self._current[None] = self._take(None, now)
        return account

    def close(self, how: How, now: float, *, orderly: bool) -> Iterator[Observation]:
        """The socket is over: what was under way, or asked for, leaves its line."""
        for account in self.under_way():
            ended = orderly and self.rules.emit == "session" and not (self._dialect.end or self._dialect.final)
            yield self._settle(account, "complete" if ended else how, now)

    def refuse(self, call: Call, now: float) -> list[Observation]:
        """A response that was asked for and will not come."""
        return [self._settle(account, "complete", now) for account in self.under_way() if account.call is call]

    def under_way(self) -> list[Account]:
        """Responses that were asked for or have begun, oldest first."""
        waiting = [account for queue in self._waiting.values() for account in queue]
        found = {id(account): account for account in (*self._open.values(), *self._current.values(), *waiting)}
        return sorted(found.values(), key=lambda account: account.call.began)

    def _crowded(self, now: float) -> Iterator[Observation]:
        """Of more responses than anybody has under way the oldest are given up."""
        if len(self._open) + sum(map(len, self._waiting.values())) > MOST:
            yield self._settle(self.under_way()[0], "broken", now)

    def _take(self, lane: str | None, now: float) -> Account:
        """The response that was asked for first, or one that nobody asked for (the provider heard someone speak)."""
        queue = self._waiting.get(lane)
        return queue.popleft() if queue else self._account({}, b"", lane, None, now)

    def _account(self, frame: Any, data: bytes, lane: str | None, key: str | None, now: float) -> Account:
        # A digest stands for what was asked: enough to know a second try by, and nothing to keep.
        digest = blake2b(data, digest_size=16).digest() if data else b""
        ident = new_id(int(now * 1e9))
        labels = dict(self._socket.labels)
        call = replace(
            self._socket.call,
            id=ident,
            began=now,
            body=lambda: digest,
            request_bytes=len(data),
            labels=labels,
            later=None,
        )
        self._socket.label(call)
        account = Account(call, self._fold(_slim(frame)), lane, key)
        if data and self.rules.telling is not None:
            account.asked = measured(data)
        return account

    def _fold(self, asked: dict[str, Any]) -> Fold:
        """A new account that knows what was said of the whole session."""
        fold = Fold(self._dialect, self._scope({**self._setup, **asked}))
        fold.scope.slots = list(self._session.scope.slots)
        return fold

    def _scope(self, asked: dict[str, Any]) -> Scope:
        socket = self._socket
        call, captures = socket.call, socket.claim.captures
        if self.rules.emit == "session":  # what was set up is known only later
            return Scope(socket.answer.headers, call.headers, lambda: self._setup, captures, call.query)
        return Scope(socket.answer.headers, call.headers, lambda: asked, captures, call.query)

    def _rise(self, reading: Reading) -> None:
        """Of a running total of the session this response has the rise. One that falls has begun again."""
        for row in self._dialect.rows_by_event:
            total = reading.counters.get(row.name)
            if row.fold == "rise" and total is not None:
                before = self._totals.get(row.name, 0)
                self._totals[row.name] = total
                reading.counters[row.name] = total - before if total >= before else total

    def _settle(self, account: Account, how: How, now: float) -> Observation:
        if account.key is not None:
            self._open.pop(account.key, None)
            self._done[account.key] = None
            if len(self._done) > MOST:
                del self._done[next(iter(self._done))]
        queue = self._waiting.get(account.lane)
        if queue and account in queue:
            queue.remove(account)
        if not queue:
            self._waiting.pop(account.lane, None)
        for lane in [lane for lane, current in self._current.items() if current is account]:
            del self._current[lane]
        if self._recent is account:
            self._recent = next(reversed(self._open.values()), None)
        socket, reading = self._socket, account.fold.reading()
        self._rise(reading)
        if account.call.later is not None:
            account.call.later(account.fold.scope.request, reading)
        return Observation(
            account.call, socket.claim, socket.answer, reading, how, now, "ws", True,
            first_byte_at=account.first_byte_at, first_token_at=account.first_token_at, response_bytes=account.received,
            passed=account.passed(reading, how),
        )  # fmt: skip


class Socket:
    """One observed socket. `call`: the upgrade's request, from which each response's own call is made.

    `labels`: what its headers said; `label(call)` adds what else is known of each response's call.
    """

    def __init__(
        self, call: Call, claim: Claim, answer: Answer, labels: Mapping[str, str], label: Callable[[Call], None]
    ) -> None:
        self.call = call
        self.claim = claim
        self.answer = answer
        self.labels = labels
        self.label = label
        self.closed = False
        self.asked: Call | None = None
        """The call that the last message asked for, of which its frame has not left yet: here a budget may say no."""
        self._tabs = [Tabs(self, dialect) for dialect in claim.binding.dialects]

    def refuse(self, call: Call, now: float) -> list[Observation]:
        """What was `asked` for does not leave: the response that will not come."""
        return [seen for tabs in self._tabs for seen in tabs.refuse(call, now)]

    def came(self, call: Call) -> int | None:
        """Bytes of the response that a frame asked for with this call; None when it is not under way, or no more."""
        account = None if self.closed else self._account_of(call)
        return None if account is None else account.received

    def model(self, call: Call) -> str | None:
        """The model that such a frame asks for, by all that was said on this socket."""
        account = self._account_of(call)
        return None if account is None else account.fold.reading().request_model

    def _account_of(self, call: Call) -> Account | None:
        found = (account for tabs in self._tabs for account in tabs.under_way() if account.call is call)
        return next(found, None)

    def feed(self, data: bytes, now: float, *, from_client: bool) -> list[Observation]:
        """A message as it passes, text or binary, at `now` (epoch seconds). Never raises for what is in it.

        Whether it has to be parsed is told by its bytes, so that sound passes at next to no cost.
        """
        self.asked = None
        if self.closed:
            return []
        words = words_of(data) if len(data) <= BIG else None
        if words is None or any(tabs.wants(words, asked=from_client) for tabs in self._tabs):
            return self.hear(parse(data), data, now, from_client=from_client)
        for tabs in self._tabs:
            tabs.pass_by(data, words, now, asked=from_client)
        return []

    def hear(self, event: Any, data: bytes, now: float, *, from_client: bool) -> list[Observation]:
        """The same, of a message that was parsed elsewhere."""
        self.asked = None
        if self.closed or type(event) is not dict:
            return []
        if from_client:
            return [seen for tabs in self._tabs for seen in tabs.asked(event, data, now)]
        return [seen for tabs in self._tabs for seen in tabs.answered(event, data, now)]

    def close(self, how: How, now: float, *, orderly: bool = False) -> list[Observation]:
        """The socket is over; the responses that were not. `orderly`: both sides had said that this is the end.

        [] where it was closed before, and of a guess by shape: several shapes may wait for what one of them has read.
        """
        if self.closed:
            return []
        self.closed = True
        if self.claim.binding.role == "by_shape":
            return []
        return [seen for tabs in self._tabs for seen in tabs.close(how, now, orderly=orderly)]


def _slim(value: Any, depth: int = DEEP) -> Any:
    """A request without its texts: names, numbers and the lists they stand in."""
    if type(value) is dict:
        members = ((key, _slim(inside, depth - 1)) for key, inside in value.items()) if depth else ()
        return {key: inside for key, inside in members if inside is not None}
    if type(value) is list:
        return [_slim(inside, depth - 1) for inside in value[:SHORT]] if depth else []
    return None if type(value) is str and len(value) > SHORT else value
