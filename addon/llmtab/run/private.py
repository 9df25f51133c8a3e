"""The private proxy of one program: started on a free port of this machine, ended with the program.

Knows how it is started, told to end, and what it said. Must not know mitmproxy (that is `private_main`, in the other
process) or the program. The proxy ends when this process does, however that ends: its standard input is ours to close.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmtab.home import home, private_folder

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
_PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from llmtab.run.private_main import main; main()"
_NOISE: Final = ("logged during startup", "Loading script")


@dataclass(frozen=True, slots=True)
class Ready:
    """A running proxy: where it listens, who writes its lines, where to, and the CA that its clients must trust."""

    port: int
    writer: str
    ledger: Path
    ca: Path


class PrivateProxy:
    """One proxy. `arguments` are mitmdump's; `environment` is the proxy's own, not the program's."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the proxy
        root = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                _PROGRAM,
                root,
            ],  # -P: a file of the working directory must not shadow a module
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment),
            start_new_session=True,  # a Control-C is for the program; the proxy has to see its calls to the end
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(arguments)).encode() + b"\n")
        self._process.stdin.flush()

    def ready(self) -> Ready:
        """Waits until it listens. Raises OSError with the line that says why it does not."""
        out = self._process.stdout
        assert out is not None
        line = out.readline() if select.select([out], [], [], START_SECONDS)[0] else b""
        if not line:
            self.stop()
            said = self.said()
            raise OSError(said[-1] if said else "the proxy did not start")
        told = json.loads(line)
        return Ready(told["port"], told["writer"], Path(told["ledger"]), Path(told["ca"]))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Lets it write its last lines and end; ends it where it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def said(self) -> list[str]:
        """Its warnings and errors, a line each."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        return [_unstamped(line) for line in lines if line and not any(noise in line for noise in _NOISE)]


def arguments(script: Path, options: Mapping[str, str | Path], *, mode: str = "regular") -> list[str]:
    """mitmdump's arguments for a private proxy: any free port of loopback, warnings only, nothing drawn."""
    words = ["-s", str(script), "--mode", mode, "--listen-host", "127.0.0.1", "-p", "0"]
    quiet: dict[str, str | Path] = {"termlog_verbosity": "warn", "llmtab_table": "off"}
    for name, value in (quiet | dict(options)).items():
        words += ["--set", f"{name}={value}"]
    return words


def own_environment() -> dict[str, str]:
    """The proxy's environment: ours, without the labels that it is told otherwise.

    Where Python is not to leave bytecode beside its sources (as in many containers) it goes to a folder of ours:
    compiling mitmproxy takes longer than everything else.
    """
    environment = {name: value for name, value in os.environ.items() if name != "LLMTAB_LABELS"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = home() / "cache" / "python"
        with suppress(OSError):
            private_folder(folder)  # Python would make it, and all above it, for everybody
        environment.setdefault("PYTHONPYCACHEPREFIX", str(folder))
    return environment


def _unstamped(line: str) -> str:
    """mitmproxy puts the time before each line, and we our name: `[10:11:12.345] llmtab: text`."""
    stamp, bracket, text = line.partition("] ")
    return (text if bracket and stamp.startswith("[") and stamp[1:3].isdigit() else line).removeprefix("llmtab: ")
