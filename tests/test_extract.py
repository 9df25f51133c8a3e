"""The fold of a call's events into counters and facts: what each form of the profile language does with odd values."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtab.extract import Fold, Reading, amount_of, merged
from llmtab.profiles import Profiles
from llmtab.profiles.compiled import Dialect
from llmtab.profiles.files import validated
from llmtab.profiles.refs import Scope
from llmtab.profiles.rows import quantity
from llmtab.record import encode, wire_text
from llmtab.usage import COUNTERS

ROWS = {"input_tokens": ["/in"], "output_tokens": ["/out"]}


def dialect(**spec: Any) -> Dialect:
    """A dialect of these words, through the grammar as a file's would come."""
    whole = {"dialect": "t", "source": "https://t.example", "usage": ROWS, **spec}
    return Dialect("t", validated(whole, "t.yaml"))


def scope(**facts: Any) -> Scope:
    query = facts.get("query", {})
    return Scope(
        facts.get("headers", {}), facts.get("request_headers", {}), lambda: facts.get("request"),
        facts.get("captures", {}), query.get,
    )  # fmt: skip


def read(found: Dialect, *events: Any, **facts: Any) -> Reading:
    fold = Fold(found, scope(**facts))
    for event in events:
        fold.feed(event)
    return fold.reading()


def counters(row: Any, *usages: Any, **facts: Any) -> dict[str, Any]:
    """The counters of one row `input_tokens` over events with these usage objects."""
    return read(dialect(usage={"input_tokens": row}), *({"usage": usage} for usage in usages), **facts).counters


# -- figures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "figure"),
    [
        (7, 7),
        (0, 0),
        (7.0, 7),
        ("7", 7),
        ("7.0", 7),
        (1.5, Decimal("1.5")),
        ("1.5", Decimal("1.5")),
        (1e3, 1000),
        (0.1 + 0.2, Decimal("0.3")),
        (Decimal("2.50"), Decimal("2.5")),
        (True, None),
        (False, None),
        (None, None),
        (-1, None),
        (-0.5, None),
        ("-3", None),
        (math.nan, None),
        (math.inf, None),
        ("NaN", None),
        ("Infinity", None),
        ("seven", None),
        ("", None),
        ([7], None),
        ({"n": 7}, None),
        (10**16, None),
        ("9" * 40, None),
        ("1e-9999999", 0),
        (5e-324, 0),
    ],
)
def test_figures(value: Any, figure: Any) -> None:
    """Integral floats and numeric text are numbers, to nine places; booleans, NaN, negatives and noise are not."""
    assert quantity(value) == figure
    assert type(quantity(value)) is type(figure)


@pytest.mark.parametrize("value", [True, -1, "many", math.nan, [1], 10**16])
def test_a_figure_that_is_none_is_flagged(value: Any) -> None:
    """A value that is no number is not counted, and the line says that something was dropped."""
    found = read(dialect(), {"usage": {"in": value, "out": 3}})
    assert found.counters == {"output_tokens": 3, "total_tokens": 3}
    assert found.flags == ["dropped:input_tokens"]


def test_absent_is_unknown() -> None:
    """What is absent or null is unknown, not 0, and no reason for a flag."""
    found = read(dialect(), {"usage": {"in": None}}, {"usage": {}})
    assert (found.counters, found.flags, found.seen) == ({}, [], True)


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "usage", "value"),
    [
        (["/a", "/b"], {"a": 1, "b": 2}, 3),
        (["/a", "/b"], {"a": 1}, 1),
        (["/a", "/b"], {"a": 1, "b": "2.5"}, Decimal("3.5")),
        ([{"any": ["/a", "/b"]}], {"b": 2}, 2),
        ([{"any": ["/a", "/b"]}], {"a": 0, "b": 2}, 0),
        ([{"any": ["/a", "/b"]}], {"a": None, "b": 2}, 2),
        (["/a/b/c"], {"a": {"b": {"c": 4}}}, 4),
        (["/a/b/c"], {"a": {"b": 3}}, None),
        (["/a/b/c"], {"a": [1]}, None),
        (["/a/1/n"], {"a": [{"n": 1}, {"n": 2}]}, 2),
        (["/a/7/n"], {"a": [{"n": 1}]}, None),
        (["/a~1b/c~0d"], {"a/b": {"c~d": 6}}, 6),
        ([{"ref": "/n", "where": {"/type": "text"}}], {"n": 3, "type": "text"}, 3),
        ([{"ref": "/n", "where": {"/type": "text"}}], {"n": 3, "type": "audio"}, None),
        ([{"sum": "/m/*/n"}], {"m": [{"n": 1}, {"n": 2}, {}, {"n": None}]}, 3),
        ([{"sum": "/m/*/n"}], {"m": {"x": {"n": 1}, "y": {"n": 4}}}, 5),
        ([{"sum": "/m/*/n"}], {"m": []}, None),
        ([{"sum": "/m/*/n"}], {"m": "text"}, None),
        ([{"sum": "/m/*/n", "where": {"/k": ["A", 4]}}], {"m": [{"k": 4, "n": 1}, {"k": "A", "n": 2}, {"n": 9}]}, 3),
        ([{"sum": "/m/*/l/*"}], {"m": [{"l": [1, 2]}, {"l": [3]}, {"l": 4}]}, 6),
        ([{"count": "/m/*"}], {"m": ["a", "b", "a"]}, 3),
        ([{"count": "/m/*", "distinct": ""}], {"m": ["a", "b", "a"]}, 2),
        ([{"count": "/m/*", "distinct": "", "where": {"": "?*"}}], {"m": ["a", "", "a"]}, 1),
        ([{"count": "/m/*", "distinct": "/id"}], {"m": [{"id": 1}, {"id": 1}, {"id": 2}]}, 2),
        ([{"count": "/m/*"}], {}, None),
    ],
)  # fmt: skip
def test_rows(row: Any, usage: Any, value: Any) -> None:
    """Terms add up; alternatives give the first that has a value; lists are summed or counted, as far as they fit."""
    expected = {} if value is None else {"input_tokens": value, "total_tokens": value}
    assert counters(row, usage) == expected


@pytest.mark.parametrize(
    ("expected", "value", "holds"),
    [
        ("text", "text", True),
        ("text", "Text", False),
        ("te*", "text", True),
        ("te*", 7, False),
        ("t?xt", "text", True),
        (["a", "b"], "b", True),
        (["a", "te*"], "text", True),
        (["a", "b"], None, False),
        ("present", 0, True),
        ("present", None, False),
        ("absent", None, True),
        ("absent", "", False),
        (1, 1, True),
        (1, True, False),
        (True, True, True),
        (True, 1, False),
        (True, "true", False),
        (1, "1", False),
        ("1", 1, False),
    ],
)
def test_tests(expected: Any, value: Any, holds: bool) -> None:
    """A test is a value, a list of them, a glob, `present` or `absent`; a boolean is not a number."""
    assert bool(counters([{"ref": "/n", "where": {"/k": expected}}], {"n": 5, "k": value})) is holds


def test_tests_all_hold() -> None:
    """All conditions of a test must hold, wherever they look."""
    where = {"/k": "a", "header:X-Kind": "b", "request:/c": "present", "path:model": "m*", "query:alt": "sse"}
    facts = {"headers": {"x-kind": "b"}, "request": {"c": 1}, "captures": {"model": "m1"}, "query": {"alt": "sse"}}
    assert counters([{"ref": "/n", "where": where}], {"n": 5, "k": "a"}, **facts) != {}
    for broken in ({"headers": {}}, {"request": None}, {"captures": {}}, {"query": {}}):
        assert counters([{"ref": "/n", "where": where}], {"n": 5, "k": "a"}, **{**facts, **broken}) == {}


def test_what_stands_outside_the_total() -> None:
    """A term that belongs to the counter only if the provider's own total is not reached without it."""
    found = dialect(usage={"input_tokens": ["/in"], "output_tokens": ["/out", {"outside": "/more", "of": "/total"}]})
    for usage, output in (
        ({"in": 10, "out": 5, "more": 7, "total": 22}, 12),
        ({"in": 10, "out": 5, "more": 7, "total": 15}, 5),
        ({"in": 10, "out": 5, "more": 7}, 12),
        ({"in": 10, "out": 5, "total": 15}, 5),
        ({"in": 10, "more": 7, "total": 17}, 7),
    ):
        assert read(found, {"usage": usage}).counters["output_tokens"] == output


def test_headers_count_too() -> None:
    """Figures in headers are figures; a header root makes a usage of headers alone."""
    found = dialect(roots=["header:x-in"], usage={"input_tokens": ["header:X-In"], "output_tokens": ["header:X-Out"]})
    told = read(found, {"text": "x"}, headers={"x-in": "12", "x-out": "3"})
    assert told.counters == {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    assert read(found, {"text": "x"}).seen is False


# -- folds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fold", "value"), [("last", 4), ("max", 9), ("sum", 15), ("first", 2)])
def test_folds(fold: str, value: int) -> None:
    """Over the events of a stream a row keeps the last value, the greatest, the first, or adds them up."""
    row = {"terms": ["/in"], "fold": fold}
    usages = [{"in": 2}, {"in": 9}, {}, {"in": None}, {"in": "x"}, {"in": 4}]
    assert counters(row, *usages)["input_tokens"] == value


def test_null_erases_nothing() -> None:
    """The last value that is not null counts, member by member, inside objects too."""
    found = dialect(usage={"input_tokens": ["/in"], "cache_read_input_tokens": ["/d/read"], "output_tokens": ["/out"]})
    events = [
        {"usage": {"in": 9, "d": {"read": 4, "x": 1}}},
        {"usage": {"in": None, "out": 2, "d": {"x": 2}}},
        {"usage": None},
    ]
    assert read(found, *events).counters == {
        "input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 2, "total_tokens": 11,
    }  # fmt: skip


def test_a_snapshot_replaces_the_whole_account() -> None:
    """Where each event is a whole account, what the last one does not name is not kept from an earlier one."""
    found = dialect(snapshot={"/whole": "present"})
    events = [{"usage": {"in": 9, "out": 5, "whole": 1}}, {"usage": {"in": 3, "whole": 1}}, {"usage": {"out": 1}}]
    assert read(found, *events[:2]).counters == {"input_tokens": 3, "total_tokens": 3}
    assert read(found, *events).counters == {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}


def test_the_first_root_counts() -> None:
    """Of several places for the usage object the first that is there is read, in each event; nothing else is."""
    found = dialect(roots=["/a/usage", "/usage"])
    assert read(found, {"usage": {"in": 1}, "a": {"usage": {"in": 2}}}).counters["input_tokens"] == 2
    assert read(found, {"usage": {"in": 1}, "a": {"usage": None}}).counters["input_tokens"] == 1
    assert read(found, {"usage": [1]}, {"b": {"usage": {"in": 1}}}, {"usage": "in"}).seen is False


def test_wrappers_are_taken_off() -> None:
    """A gateway's wrapper around each event is taken off; an event without it is read as it is."""
    found = dialect(unwrap=["/response", "/result/inner"], model="/model")
    for event in ({"response": {"model": "m", "usage": {"in": 1}}}, {"model": "m", "usage": {"in": 1}}):
        told = read(found, event)
        assert (told.model, told.counters["input_tokens"]) == ("m", 1)


def test_some_events_do_not_count() -> None:
    """With `when` only events that fit are asked for usage."""
    found = dialect(when={"/kind": "bill"})
    assert (
        read(found, {"kind": "bill", "usage": {"in": 1}}, {"kind": "echo", "usage": {"in": 9}}).counters["input_tokens"]
        == 1
    )


# -- checks ------------------------------------------------------------------------------------------------------------


def test_the_total_is_ours() -> None:
    """total_tokens is input plus output; the provider's own is kept beside it, and flagged, only where it differs."""
    found = dialect(total="/total")
    assert read(found, {"usage": {"in": 3, "out": 4, "total": 7}}).counters["total_tokens"] == 7
    told = read(found, {"usage": {"in": 3, "out": 4, "total": 9}})
    assert (told.counters["total_tokens"], told.counters["reported_total_tokens"], told.flags) == (
        7,
        9,
        ["total_mismatch"],
    )
    assert read(found, {"usage": {"total": 9}}).counters == {}


def test_a_part_greater_than_its_whole() -> None:
    """What the wire says is kept as it is, and flagged."""
    found = dialect(usage={**ROWS, "cache_read_input_tokens": ["/read"]})
    told = read(found, {"usage": {"in": 3, "read": 8}})
    assert told.counters["cache_read_input_tokens"] == 8
    assert told.flags == ["part_exceeds:cache_read_input_tokens"]


def test_a_stale_part_is_clamped() -> None:
    """A part that only an earlier event named cannot be greater than the whole that a later one lowered."""
    found = dialect(usage={**ROWS, "cache_read_input_tokens": ["/read"]})
    told = read(found, {"usage": {"in": 9, "read": 8}}, {"usage": {"in": 3}})
    assert told.counters["cache_read_input_tokens"] == 3
    assert told.flags == ["part_exceeds:cache_read_input_tokens"]


def test_a_stale_overlap_without_its_whole() -> None:
    """An overlap whose one whole is unknown is compared with the other one, and harms nothing."""
    rows = {"audio_input_tokens": ["/audio"], "cache_read_audio_input_tokens": ["/both"]}
    told = read(dialect(usage=rows), {"usage": {"both": 8}}, {"usage": {"audio": 3}})
    assert told.flags == ["part_exceeds:cache_read_audio_input_tokens"]


def test_clamping_goes_all_the_way_down() -> None:
    """Where a whole is clamped its own stale parts are as well."""
    rows = {**ROWS, "cache_creation_input_tokens": ["/written"], "cache_creation_1h_input_tokens": ["/hour"]}
    told = read(dialect(usage=rows), {"usage": {"in": 9, "written": 8, "hour": 6}}, {"usage": {"in": 3}})
    assert told.counters["cache_creation_input_tokens"] == told.counters["cache_creation_1h_input_tokens"] == 3


# -- facts -------------------------------------------------------------------------------------------------------------


def test_facts() -> None:
    """Model, id, tier and the like are the last value that an event had, the empty text being none."""
    found = dialect(
        model={"any": ["/m2", "/m1"]}, id="/id", tier="usage:/tier", request_model="request:/model",
        request_id="header:X-Id", region="host:region", finish=["/why", "/c/*/why"],
    )  # fmt: skip
    events = [
        {"id": "a", "m1": "one", "c": [{"why": "x"}, {"why": None}]},
        {"id": "", "usage": {"tier": "t"}, "m1": "two", "why": "y"},
    ]
    told = read(found, *events, request={"model": "asked"}, headers={"x-id": "r"}, captures={"region": "eu"})
    assert (told.model, told.response_id, told.service_tier, told.request_model) == ("two", "a", "t", "asked")
    assert (told.request_id, told.region, told.finish_reasons) == ("r", "eu", ["x", "y"])


@pytest.mark.parametrize("value", ["two words", "a" * 129, "tab\t", "naïve", "\x01"])
def test_text_that_may_not_be_kept(value: str) -> None:
    """A fact outside the ledger's alphabet is dropped, and the line says so."""
    told = read(dialect(model="/model", id="/id", finish=["/why"]), {"model": value, "id": value, "why": value})
    assert (told.model, told.response_id, told.finish_reasons) == (None, None, [])
    assert told.flags == ["dropped:response_model", "dropped:response_id"]


@pytest.mark.parametrize(
    ("tier", "pricing"),
    [
        ("default", "standard"),
        ("on_demand", "standard"),
        ("ON_DEMAND", "standard"),
        ("auto", "auto"),
        ("AUTO", "auto"),
        ("Flex", "flex"),
        ("fast", "priority"),
        (2, "2"),
    ],
)
def test_tiers(tier: Any, pricing: str | None) -> None:
    """The tier's raw word is kept, and beside it one for pricing: the profile's, a common one, or lower case."""
    told = read(dialect(tier="/tier", tiers={"fast": "priority"}), {"tier": tier, "usage": {"in": 1}})
    assert (told.service_tier, told.pricing_tier) == (str(tier), pricing)


def test_a_wish_in_a_stream_that_was_cut() -> None:
    """What a stream began with is the wish; without its account an estimate is made at the ordinary price."""
    told = read(dialect(tier="/tier"), {"tier": "auto"})
    assert (told.service_tier, told.pricing_tier) == ("auto", None)


def test_marks() -> None:
    """Final, end and error are tests of single events."""
    found = dialect(
        final=[{"/t": "bill"}], end=[{"/t": "bye"}, {"": "[[]DONE]"}], error=[{"/e": "present"}], error_type="/e/kind"
    )
    told = read(found, {"t": "bill"})
    assert (told.final, told.ended, told.failed) == (True, False, False)
    assert read(found, {"t": "x"}, "[DONE]").ended
    assert not read(found, "[DONE", "DONE").ended
    failed = read(found, {"e": {"kind": "overloaded"}})
    assert (failed.failed, failed.error_type) == (True, "overloaded")


def test_shares_of_other_models() -> None:
    """Each element that fits is another model's share, with a total of its own; one without tokens is none."""
    part = {"each": "/steps/*", "where": {"/kind": "adviser"}, "model": "/model", "usage": ROWS}
    steps = [{"kind": "adviser", "model": "big", "in": 5, "out": 1}, {"kind": "self", "in": 9}, {"kind": "adviser"},
             {"kind": "adviser", "model": "two words", "in": 2}]  # fmt: skip
    told = read(dialect(parts=[part]), {"usage": {"in": 1, "steps": steps}})
    assert told.counters == {"input_tokens": 1, "total_tokens": 1}
    assert told.parts == [
        ("big", {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}),
        (None, {"input_tokens": 2, "total_tokens": 2}),
    ]


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (0.0012, Decimal("0.0012")),
        ("0.0012", Decimal("0.0012")),
        (" $0.0012USD ", Decimal("0.0012")),
        (3, Decimal(3)),
        (0, Decimal(0)),
        (True, None),
        ("free", None),
        (-1, None),
        (math.nan, None),
        (None, None),
        ([1], None),
        (10**20, None),
    ],
)
def test_amounts(value: Any, amount: Decimal | None) -> None:
    """Money on the wire is a number or text with a currency sign; nothing else is money."""
    assert amount_of(value) == amount


def test_money_is_scaled_and_summed() -> None:
    """Ticks become dollars, several figures add up, and alternatives give the first that is there."""
    found = dialect(money=[{"ref": "/ticks", "scale": "1e-10"}, {"ref": {"any": ["/fee", "/charge"]}}])
    assert read(found, {"usage": {"in": 1, "ticks": 25_000_000, "charge": "0.5"}}).money == Decimal("0.5025")
    assert read(found, {"usage": {"in": 1}}).money is None


def test_a_zero_may_be_a_placeholder() -> None:
    """0 is an amount, except where the profile knows that the provider writes it for lack of one."""
    assert read(dialect(money=[{"ref": "/cost"}]), {"usage": {"cost": 0}}).money == 0
    assert read(dialect(money=[{"ref": "/cost", "zero": "unknown"}]), {"usage": {"cost": 0}}).money is None


def test_money_of_a_key_of_ones_own() -> None:
    """With a key of one's own the gateway's figure and the vendor's price stand in different places."""
    found = dialect(
        money=[{"ref": "/cost"}, {"ref": "/upstream", "where": {"/byok": True}}],
        billing=[{"is": "byok", "where": {"usage:/byok": True}}],
    )
    byok = read(found, {"usage": {"cost": 0, "byok": True, "upstream": 0.004}})
    assert (byok.money, byok.billing) == (Decimal("0.004"), "byok")
    plain = read(found, {"usage": {"cost": 0.005, "byok": False, "upstream": 0.004}})
    assert (plain.money, plain.billing) == (Decimal("0.005"), None)


def test_what_is_not_billed() -> None:
    """A gateway's own cache, say, is told by a test."""
    found = dialect(not_billed=[{"header:x-cache": "HIT"}])
    assert read(found, headers={"x-cache": "HIT"}).not_billed
    assert not read(found, headers={"x-cache": "MISS"}).not_billed


# -- anything ----------------------------------------------------------------------------------------------------------

NAMES = [
    *(
        "usage",
        "usageMetadata",
        "input_tokens",
        "output_tokens",
        "prompt_tokens",
        "total_tokens",
        "promptTokensDetails",
    ),
    *("modality", "tokenCount", "candidates", "iterations", "type", "model", "response", "message", "id", "cost", "0"),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["[DONE]", "message_stop", "7"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def dialects() -> list[Dialect]:
    """Every built-in dialect, with the overrides of every provider."""
    profiles = Profiles.load()
    return [
        found
        for provider in profiles.providers.values()
        for _, _, key, spec in provider.routes
        for found in provider.binding(key, spec).dialects
    ]


def test_no_events_raise_anything(dialects: list[Dialect]) -> None:
    """Whatever JSON an answer holds, every built-in dialect reads it: figures of our alphabet, or none."""
    seen = {id(found.rows): found for found in dialects}

    @given(st.lists(JSON, max_size=4), st.sampled_from(list(seen.values())))
    def fuzz(events: list[Any], found: Dialect) -> None:
        told = read(found, *events, request={"model": 7}, headers={"x": "y"})
        assert told.counters.keys() <= COUNTERS.keys()
        assert all(value >= 0 and not isinstance(value, bool) for value in told.counters.values())
        assert all(
            text is None or wire_text(text)
            for text in (told.model, told.response_id, told.region, *told.finish_reasons)
        )
        assert len(encode({"usage": told.counters})) < 4096

    fuzz()


def test_merged_is_member_by_member() -> None:
    """Objects are merged, everything else is replaced, and neither side is changed."""
    old: Mapping[str, Any] = {"a": 1, "b": {"c": 2, "d": [1]}, "e": {"f": 1}}
    new: Mapping[str, Any] = {"a": None, "b": {"c": 3, "d": [2]}, "e": 5}
    assert merged(old, new) == {"a": 1, "b": {"c": 3, "d": [2]}, "e": 5}
    assert old == {"a": 1, "b": {"c": 2, "d": [1]}, "e": {"f": 1}}
