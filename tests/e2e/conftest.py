"""The upstream and the proxy that the end-to-end tests share, and a maker of proxies for those that need their own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machine import Machine
from proxy import Proxy
from upstream import Upstream
from way_out import WayOut


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """One local provider for all tests. A test composes its answers with `upstream.on(target, answer)`."""
    with Upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(scope="session")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mitmproxy's own folder, with one CA for all proxies of the run: making one takes a while."""
    return tmp_path_factory.mktemp("conf")


@pytest.fixture
def start(upstream: Upstream, conf: Path, tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """`start("--set", "x=y")` starts a proxy of the test's own, with a ledger of its own."""
    with ExitStack() as stack:

        def starter(*arguments: str, script: Path | None = None) -> Proxy:
            options = {"script": script} if script else {}
            return stack.enter_context(Proxy(upstream, tmp_path, *arguments, conf=conf, **options))

        yield starter


@pytest.fixture
def own(start: Callable[..., Proxy]) -> Proxy:
    """A proxy of the test's own with default options, for tests that stop it or look at the whole ledger."""
    return start()


@pytest.fixture(scope="session")
def shared(upstream: Upstream, conf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One proxy for all tests that only send calls: starting one takes a second."""
    with Proxy(upstream, tmp_path_factory.mktemp("shared"), conf=conf) as running:
        yield running


@pytest.fixture
def proxy(shared: Proxy) -> Proxy:
    """The shared proxy; `proxy.lines()` gives the lines of this test only."""
    shared.mark()
    return shared


@pytest.fixture(scope="session")
def way(upstream: Upstream) -> Iterator[WayOut]:
    """The company's proxy: the only way from this machine to anywhere."""
    with WayOut(upstream) as running:
        yield running


@pytest.fixture(scope="session")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is made once on a machine, kept for all of them."""
    return tmp_path_factory.mktemp("used")


@pytest.fixture
def machine(tmp_path: Path, way: WayOut, used: Path) -> Machine:
    """A machine with an empty ledger."""
    return Machine(tmp_path, way, used)
