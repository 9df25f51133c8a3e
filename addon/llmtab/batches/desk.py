"""Batch results: every item of every file is booked once, however often and in whatever pieces the file is fetched.

Knows which files were seen, and works on what came in slices of a millisecond, so that the event loop goes on. Must not
know mitmproxy, nor what an item means. All of it belongs to the event loop; the ledger is read back in a thread.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter, time
from typing import Any, Final

from llmtab.batches.download import HIGH, Backlog, Brake, Download, place
from llmtab.batches.items import Items
from llmtab.batches.store import Desk, Store
from llmtab.events import BIG, parse
from llmtab.observation import Answer, Call
from llmtab.profiles import Claim
from llmtab.record import wire_text
from llmtab.wire.decoding import decode_all

log = logging.getLogger("llmtab")

SLICE: Final = 0.001
"""Seconds of work at a time."""
REMEMBERED: Final = 32
"""Files; of one seen longer ago the ledger is read again."""
ID: Final = "batch"
"""What a route calls the part of its path that names the file or batch."""
DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes (decoded) of a JSON document of items that is read."""
SHUTDOWN: Final = 60.0
"""Seconds a shutdown goes on with what has come: some 100,000 items take ten."""


class Fetch:
    """One request for a batch result, from its head to its end."""

    def __init__(self, batches: "Batches", call: Call, claim: Claim) -> None:
        self._batches = batches
        self.call = call
        self.claim = claim
        self.answer = Answer()
        self._download: Download | None = None
        self._store: Store | None = None

    def answered(self, answer: Answer, content_range: str, stream: Any, brake: Brake) -> Any:
        """The answer's head is here. What `response.stream` is to be: a tap, or `stream` where nothing is to be read
        on the way (a JSON document is read when it is whole)."""
        self.answer = answer
        batch = self.claim.binding.batch
        if batch is None or batch.each or answer.status not in (200, 206):
            return stream
        return self._batches.tap(self, content_range, stream, brake)

    def begin(self, store: Store, download: Download) -> None:
        self._store, self._download = store, download

    def close(self, *, complete: bool, body: bytes | None) -> None:
        """The answer is over. `body`: the whole of it where it was not tapped."""
        if self._download is not None and self._store is not None:
            self._download.close(complete=complete)
            self._batches.wake(self._store)
        elif complete and self.answer.status == 200 and self.claim.binding.batch and self.claim.binding.batch.each:
            self._batches.document(self, body)


class Batches:
    """One beside each desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._stores: OrderedDict[tuple[str, str], Store] = OrderedDict()
        self._work: OrderedDict[Store, None] = OrderedDict()
        self._scheduled = False
        self._backlog = Backlog()
        self._pool: ThreadPoolExecutor | None = None
        self._jobs = 0

    def open(self, call: Call, claim: Claim) -> Fetch:
        """A request for a batch result begins."""
        return Fetch(self, call, claim)

    # -- what comes ----------------------------------------------------------------------------------------------------

    def tap(self, fetch: Fetch, content_range: str, stream: Any, brake: Brake) -> Any:
        """The tap for a file; True (just passed on) where there is nothing to be read in it."""
        coding = fetch.answer.headers.get("content-encoding", "")
        placed = place(fetch.answer.status or 0, coding, content_range)
        items, store = self._items(fetch), self._store(fetch.call.host, _path_id(fetch.claim))
        if placed is None or items is None:
            self._desk.coverage.unread(fetch.call.host, "batch_range")
            return stream or True
        if store.is_no_result:
            return stream or True
        try:
            download = Download(coding, *placed, self._backlog, brake, lambda: self.wake(store))
        except ValueError:
            self._desk.coverage.unread(fetch.call.host, "batch_undecodable")
            return stream or True
        store.downloads.append((download, items))
        fetch.begin(store, download)
        return download.tap(stream, lambda: self._work_off(store, download))

    def document(self, fetch: Fetch, body: bytes | None) -> None:
        """A whole JSON document that may hold items; None: it was passed on as it came (`stream_large_bodies`)."""
        items = self._items(fetch)
        if items is None or body is None:
            self._desk.coverage.unread(fetch.call.host, "batch_streamed")
            return
        read = partial(_read, items, body, fetch.answer.headers.get("content-encoding", ""))
        done = partial(self._read_document, fetch, items)
        if len(body) < BIG // 4:
            done(read())
        else:
            self.in_thread(read, done)

    def _read_document(self, fetch: Fetch, items: Items, found: tuple[Any, list[Any]]) -> None:
        its_id, results = found
        if results:
            store = self._store(fetch.call.host, wire_text(its_id) or _path_id(fetch.claim))
            store.add_document(items, results)
            self.wake(store)

    def _items(self, fetch: Fetch) -> Items | None:
        setup = self._desk.setup
        return Items(fetch.call, fetch.claim, fetch.answer, setup.fingerprints.of_item) if setup is not None else None

    def _store(self, host: str, batch_id: str) -> Store:
        key = host, batch_id
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = Store(host, batch_id, self._desk, self)
            self._forget_old()
        self._stores.move_to_end(key)
        return store

    def _forget_old(self) -> None:
        setup = self._desk.setup
        if setup is not None and setup.ledger.waiting:
            return  # lines that are not on the disk could not be read back
        for key, store in list(self._stores.items())[:-REMEMBERED]:
            if store.is_idle and not store.held:
                del self._stores[key]

    # -- the work ------------------------------------------------------------------------------------------------------

    def wake(self, store: Store) -> None:
        """There is something to do for this file."""
        self._work[store] = None
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._slice)

    def _slice(self) -> None:
        self._scheduled = False
        deadline = perf_counter() + SLICE
        while self._work and perf_counter() < deadline:
            store = next(iter(self._work))
            if store.work(deadline):
                self._work.move_to_end(store)
            else:
                self._work.pop(store, None)
        if self._work and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._slice)

    def _work_off(self, store: Store, download: Download) -> None:
        """Too much waits and the provider cannot be slowed down: the tap itself works until there is room again."""
        while self._backlog.waiting > HIGH and download.waiting and store.work(perf_counter() + SLICE):
            pass

    def in_thread(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have something done in a thread, then its result handled on the event loop."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="llmtab-batch")
        loop = asyncio.get_running_loop()
        self._jobs += 1

        def finish(made: Future[Any]) -> None:
            self._jobs -= 1
            if (error := made.exception()) is not None:
                log.error("llmtab: a batch result could not be read", exc_info=error)
            else:
                done(made.result())

        self._pool.submit(job).add_done_callback(lambda made: loop.call_soon_threadsafe(finish, made))

    # -- time passes ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """About once a second: items whose place nobody asked for any more are booked without one."""
        now = time()
        for store in list(self._stores.values()):
            if store.held and store.is_idle and store.give_up(now):
                self.wake(store)

    async def written(self) -> None:
        """Returns when all that has come by now is on the ledger."""
        while self._work or self._jobs:
            await asyncio.sleep(0.002)

    def finish(self) -> None:
        """The process ends: what has come is booked now, as far as a few seconds allow."""
        until = perf_counter() + SHUTDOWN
        for store in list(self._stores.values()):
            if not store.finish(until):
                log.warning("llmtab: not all of batch result %s was read before the end: fetch it again", store.name)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _path_id(claim: Claim) -> str:
    """The id that the path names; a digest of one that the ledger may not hold."""
    said = claim.captures.get(ID, "")
    return wire_text(said) or "h_" + hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _read(items: Items, body: bytes, coding: str) -> tuple[Any, list[Any]]:
    """(the id that a document gives its items, its items); any thread."""
    document = parse(decode_all([body], coding, DOCUMENT).data)
    found = [item for item in items.batch.items(document) if items.batch.is_result(item)]
    return items.batch.document_id(document), found
