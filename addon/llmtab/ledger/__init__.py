"""The ledger: lines appended durably, in order and chained; read back, followed, rotated, verified."""
