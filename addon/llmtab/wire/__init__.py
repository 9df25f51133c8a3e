"""Bytes to frames: content codings, framings, and the search for the few frames that matter.

Knows nothing of LLMs, HTTP flows or JSON's meaning, and imports nothing of ours outside this room.
"""
