"""How hard the tests look: quick, as `scripts/test unit` does, or thorough, as `scripts/test` does for everything.

A test that plays every record byte by byte, or takes seconds for a number that a smaller one proves as well, is marked
`exhaustive`: `pytest -m "not exhaustive"` leaves it out.
"""

import os
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

exhaustive = pytest.mark.exhaustive


def sampled[T](values: Iterable[T], *kept: T) -> list[Any]:
    """Parameters of which a quick run takes only those that are named; the others take seconds and prove the like."""
    return [value if value in kept else pytest.param(value, marks=exhaustive) for value in values]


def examples(number: int) -> int:
    """Of Hypothesis' examples: so many where there is time, a fifth of them (but five at least) in a quick run."""
    return number if THOROUGH else max(number // 5, 5)


settings.register_profile("quick", max_examples=examples(100), deadline=None)
settings.register_profile("thorough", max_examples=examples(100), deadline=None)
settings.load_profile("thorough" if THOROUGH else "quick")
