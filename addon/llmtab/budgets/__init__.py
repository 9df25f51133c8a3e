"""Budgets and quotas: limits on money, tokens and requests that hold while calls run beside each other.

    what is allowed     amounts, windows, limits (and schema, tiers: how llmtab.yaml says it)
    how it is counted   charges: a ledger line -> what it takes from each limit; worst: the same for a call to come
    where it is kept    buckets, store (in this process), redis_store (shared by several), checkpoint (across restarts)
    what is said        gate (may this call go?), refusal, bars, simulate

What is spent is a fold over the ledger and nothing else; what is reserved lives no longer than the call (a lease ends
what a crash left behind). Nothing here imports mitmproxy.
"""
