"""Batch results: every item of every file is booked once, in whatever pieces the file is fetched."""
