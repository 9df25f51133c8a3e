"""WebSockets: one line for each billed response, not for each socket."""
