"""What the options of the ledger do to a real proxy: syncing, rotation, a key, and calls that come from elsewhere."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from proxy import MITMDUMP, Proxy, until
from test_lines import ASKED, CHAT, OPENAI
from test_streams import ASKED as ASKED_STREAM
from test_streams import CHAT_EVENTS, DONE
from upstream import Upstream, reply, stream

from llmtab.cli import main
from llmtab.ledger.reader import files, notes_path, read
from llmtab.ledger.verify import verify


def test_always_delays_no_chunk_and_loses_no_call(start: Callable[..., Proxy], upstream: Upstream) -> None:
    """With `llmtab_fsync=always` calls end as ever, buffered or streamed, and each has its line."""
    proxy = start("--set", "llmtab_fsync=always")
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    assert proxy.call(OPENAI, ASKED).status == 200
    assert len(proxy.lines()) == 1
    upstream.on("POST api.openai.com/v1/chat/completions", stream(*CHAT_EVENTS, DONE))
    assert proxy.call(OPENAI, ASKED_STREAM).body.endswith(DONE)
    asked = {**ASKED, "messages": [{"role": "user", "content": "x" * 600_000}]}  # read in a thread
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call(OPENAI, asked)
    assert len(proxy.lines()) == 3
    assert [line["outcome"] for line in proxy.settled(3)] == ["ok"] * 3


def test_two_proxies_rotate_one_ledger(start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path) -> None:
    """Two proxies on one ledger rotate and compress it under each other; it stays whole, and verbs read it as one."""
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    first, second = (start("--set", "llmtab_rotate=4KB") for _ in range(2))
    sent = 0

    def send() -> bool:
        nonlocal sent
        for proxy in (first, second):
            proxy.call(OPENAI, ASKED)
            sent += 1
        return sum(file.suffix in (".gz", ".zst") for file in files(first.ledger)) >= 2

    until(send, "two finished files")
    first.stop()
    second.stop()
    assert len(list(read(first.ledger))) == sent
    report = verify(first.ledger)
    assert (report.ok, report.lines, report.writers) == (True, sent, 2)
    assert "rotated" in {note["note"] for note in read(notes_path(first.ledger))}
    assert main(["tail", "--json", str(first.ledger)]) == 0
    assert main(["prune", "--keep", "1h", str(first.ledger)]) == 0


def test_a_keyed_ledger_is_verified_with_its_key(
    start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path
) -> None:
    """With `llmtab_chain_key` only who has the key can verify the ledger, or forge it."""
    key = tmp_path / "chain.key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    proxy = start("--set", f"llmtab_chain_key={key}")
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call(OPENAI, ASKED)
    proxy.settled(1)
    proxy.stop()
    assert main(["verify", "--key", str(key), str(proxy.ledger)]) == 0
    assert main(["verify", str(proxy.ledger)]) == 1


def test_a_retry_names_the_attempt_before_it(proxy: Proxy, upstream: Upstream) -> None:
    """A call that fails and is tried again is two lines, the second of which says so; the next call is a new one."""
    refusal = reply({"error": {"message": "slow down", "type": "rate_limit_error"}}, 429)
    upstream.on("POST api.openai.com/v1/chat/completions", refusal)
    proxy.call(OPENAI, ASKED, [("x-stainless-retry-count", "0")])
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call(OPENAI, ASKED, [("x-stainless-retry-count", "1")])
    proxy.call(OPENAI, ASKED, [("x-stainless-retry-count", "0")])
    first, second, third = proxy.settled(3)
    assert second["retry_of"] == first["id"]
    assert "retry_of" not in third


def test_a_recorded_call_is_one_line_each_time_it_is_read(
    start: Callable[..., Proxy], upstream: Upstream, tmp_path: Path
) -> None:
    """`mitmdump -nr FILE` meters what is in the file: one line a call, as if it had just passed."""
    capture = tmp_path / "capture.flows"
    proxy = start("-w", str(capture))
    upstream.on("POST api.openai.com/v1/chat/completions", reply(CHAT))
    proxy.call(OPENAI, ASKED)
    [live] = proxy.settled(1)
    proxy.stop()
    other = tmp_path / "other.jsonl"
    script = proxy.command[proxy.command.index("-s") + 1]
    command = [*MITMDUMP, "-q", "-nr", str(capture), "-s", script, "--set", f"llmtab_ledger={other}"]
    subprocess.run(command, check=True, timeout=30, env=proxy.environment, stdin=subprocess.DEVNULL)
    [line] = read(other)
    same = ("usage", "cost_usd", "response_id", "outcome", "time", "usage_source")
    assert [line[key] for key in same] == [live[key] for key in same]


def test_a_wide_ledger_is_named_at_start(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """A ledger or notes that others may read are warned of, with the command that mends it."""
    for name in ("ledger.jsonl", "ledger.notes.jsonl"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    proxy = start()
    until(lambda: proxy.output().count("chmod 600") == 2, "both warnings", proxy.output)
