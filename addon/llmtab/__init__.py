"""llmtab: put every LLM call that leaves a machine on the tab, exactly, without delaying or storing it."""

__version__ = "0.1.0"
