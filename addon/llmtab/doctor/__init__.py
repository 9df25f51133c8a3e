"""The check-up behind `llmtab doctor`: questions to this machine, each answered by findings.

    machine   Python, mitmproxy, Node.js, clock
    trust     the CA, the variables of this shell, the port, mitmproxy's own settings
    files     llmtab.yaml, prices, ledger
    trial     one call through a real proxy to a provider on this machine

A question is a function without effects beyond a temporary folder; what it is told (environment, time, paths) is given.
"""

from dataclasses import dataclass
from typing import Literal

type Grade = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `mend`: the command (or edit) that mends it; "" where there is nothing to mend."""

    topic: str
    grade: Grade
    text: str
    mend: str = ""
