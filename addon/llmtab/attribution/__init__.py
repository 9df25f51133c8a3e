"""Whose call it is: labels from headers, the proxy's user, rules, known agents, names of keys."""
