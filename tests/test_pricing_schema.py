"""Price files: what may be written in them, what the error says, and how a user's files stand over the shipped one."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmtab.documents import ConfigError, loads
from llmtab.pricing import PriceBook
from llmtab.pricing.table import bake_shipped
from pricing_helpers import NOW, TABLE, load_book, pricer, usd, why


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "home"))
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def one(entry: str) -> str:
    return f"providers:\n  openai:\n    models:\n      m: {entry}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (one("{inptu: 1}"), "4: providers.openai.models.m.inptu: unknown key, expected 'input'?"),
        (one("{input: 1, input: 2}"), "4: input: duplicate key (first in line 4), expected each key once"),
        (one("{input: 1}") + "      m: {input: 2}\n", "5: m: duplicate key (first in line 4), expected each key once"),
        (one("{input: -1}"), "4: providers.openai.models.m.input: -1 is negative, expected a price of 0 or more"),
        (one("{output: 10001}"), "10001 is above 10000 USD per million, expected USD per 1,000,000 units"),
        (one("{output: 0.0000025}"), "is below 0.0001 USD per million, expected USD per 1,000,000, not per unit"),
        (one("{image: 5000}"), "5000 is above 1000 USD a piece, expected USD per 1"),
        (one("{input: cheap}"), "4: providers.openai.models.m.input: 'cheap', expected"),
        (one("{input: .nan}"), "4: the number '.nan', expected a finite one"),
        (one("{input: true}"), "4: providers.openai.models.m.input:"),
        (one("{}"), "4: providers.openai.models.m: no price, expected rates, or 'free: true', or 'extends'"),
        (one("{free: false}"), "expected True"),
        (one("{free: true, input: 1}"), "a price beside 'free', expected one of them"),
        (one("{cache_read: input}"), "the price of input, expected an 'input' beside it"),
        (one("{input: 1, above: {-5: {input: 2}}}"), "expected greater than 0"),
        (one("{input: 1, tiers: {flex: 0.5}}"), "providers.openai.models.m.tiers.flex:"),
        (one("{input: 1, tiers: {flex: half}}"), "expected a factor like x0.5, or a row of prices"),
        (one("{input: 1, tiers: {flex: x0}}"), "x0, expected a factor above 0"),
        (one("{input: 1, windows: [{utc: '1-4', times: 2}]}"), "expected UTC hours like 01:00-04:00"),
        (one("{input: 1, windows: [{utc: 01:00-04:00}]}"), "expected 'times' or prices, one of them"),
        (
            one("{input: 1, windows: [{utc: 01:00-04:00, times: 2}, {utc: 03:59-05:00, days: sun, times: 3}]}"),
            "windows.1: overlaps window 0, expected one window at a time",
        ),
        (one("{input: 1, windows: [{utc: 01:00-04:00, days: mo, times: 2}]}"), "expected days like mon-fri or sat"),
        (one("{input: 1, from: 2026-02-30}"), "'2026-02-30' is no date"),
        (
            one("{input: 1, from: 2026-08-21T24:01Z}"),
            "4: providers.openai.models.m.from: '2026-08-21T24:01Z' is no date",
        ),
        (one("{input: 1, discount: {2026-02-30: 5%}}"), "'2026-02-30' is no date, expected a date like 2026-08-21"),
        (one("{input: 1}") + "    tiers_from: 2026-13-01\n", "5: providers.openai.tiers_from: '2026-13-01' is no date"),
        ("as_of: 2026-02-30\n", "1: as_of: '2026-02-30' is no date"),
        (
            one("{prices: [{from: 2026-01-01, input: 1}, {from: 2026-01-01T00:00Z, input: 2}]}"),
            "two prices from 2026-01-01T00:00Z, expected one",
        ),
        (one("{input: 1, tiers: {standard: x0.5}}"), "'standard', expected a tier in lower case, not the standard one"),
        (one("{input: 1, tiers: {Flex: x0.5}}"), "'Flex', expected a tier in lower case"),
        (one("{input: 1, from: tomorrow}"), "expected 2026-08-21 or 2026-08-21T16:00Z (UTC)"),
        (one("{prices: [{from: 2026-01-01, input: 1}, {from: 2026-01-01, input: 2}]}"), "two prices from 2026-01-01"),
        (one("{input: 1, prices: [{input: 2}]}"), "both 'input' and 'prices'"),
        (one("{prices: []}"), "providers.openai.models.m.prices: a list, expected"),
        (one("{input: 1, aliases: [M]}"), "'M' is already taken by providers.openai.models.m, expected one entry"),
        (one("{input: 1}") + "      M: {input: 2}\n", "5: providers.openai.models.M: 'M' is already taken by"),
        (one("{input: 1}") + "      n: {input: 2, aliases: [x, x]}\n", "'x' is already taken by"),
        (one("{input: 1, dated: ['0230']}"), "'0230', expected a date like 2024-08-06, 20240806 or 0613"),
        (one("{input: 1e999999}"), "is above 1000000000000000 USD"),
        (one("{extends: nothing}"), "'nothing' is in no table, or leads in a circle"),
        (one("{extends: n}") + "      n: {extends: m}\n", "leads in a circle"),
        (
            one("{input: 1}") + "    aliases: {prod: mm}\n",
            "5: providers.openai.aliases.prod: 'mm' is no model of openai",
        ),
        (one("{input: 1}") + "    models_of: opneai\n", "5: providers.openai.models_of: 'opneai', expected a provider"),
        (one("{input: 1, discount: 0.15}"), "expected a percentage off the list price, like 15%"),
        (one("{inputPriceValue: 1}"), "inputPriceValue and inputPriceUnit, expected both of them"),
        (
            one("{inputPriceValue: 1, inputPriceUnit: 0}"),
            "inputPriceValue 1 for inputPriceUnit 0, expected two numbers above 0",
        ),
        (one("{inputPriceValue: 1, inputPriceUnit: 1}"), "1 is above 10000 USD per million, expected USD per 1 units"),
        ("currency: EUR\n", "currency 'EUR', expected USD: other currencies are not converted, ever"),
        ("version: 2\n", "1: version: 2, expected 1"),
        ("providers: []\n", "1: providers: a list, expected"),
        ("providers:\n  OpenAI: {}\n", "a provider's name in lower case"),
    ],
)
def test_a_bad_price_file_is_one_clear_line(home: Path, text: str, says: str) -> None:
    """Unknown and duplicate keys, absurd prices, collisions: file, line, key, what is wrong and what was expected."""
    path = written(home / "prices.yaml", text)
    with pytest.raises(ConfigError) as caught:
        PriceBook.load(written(home / "pricing.yaml", TABLE), [path])
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)
    assert caught.value.line is not None


def test_patterns_are_for_users_only(home: Path) -> None:
    """A pattern in the shipped table is an error: no shipped entry may match by prefix."""
    with pytest.raises(ConfigError, match="patterns are for users' own files"):
        PriceBook.load(written(home / "pricing.yaml", one("{input: 1}").replace("m:", "'gpt-*':")))
    clash = one("{input: 1}").replace("m:", "'gpt-*-a':") + "      'gpt-*-b': {input: 2}\n"
    with pytest.raises(ConfigError, match="same beginning as 'gpt-"):
        PriceBook.load(written(home / "pricing.yaml", TABLE), [written(home / "mine.yaml", clash)])


OVERRIDES = """
providers:
  openai:
    discount: {2026-11-01: 10%}
    aliases: {prod-chat: gpt-4o, 'arn:aws:bedrock:eu-west-1:1:application-inference-profile/x': gpt-4o}
    models:
      gpt-5.4-mini: {input: 1}
      gpt-4o: {extends: gpt-4o, output: 9}
      mine: {inputPriceValue: 0.4, inputPriceUnit: 1000000, outputPriceValue: 0.0008, outputPriceUnit: 1000}
      'mine-*': {input: 2}
      'mine-big-*': {input: 3, discount: 50%}
      long: {input: 1, above: {1000: {input: 2}}}
  local:
    models: {'*': {free: true}}
  gateway: {models_of: anthropic}
"""


def overridden(folder: Path) -> Any:
    return pricer(load_book(folder, overrides=loads(OVERRIDES, "x")))


def test_an_override_replaces_the_whole_price(home: Path) -> None:
    """Nothing of the old price stays (half old, half new is nonsense), and the entry's id and table are the user's."""
    price = overridden(home)
    found = price("openai/gpt-5.4-mini", input_tokens=1_000_000)
    assert usd(found) == Decimal("0.9")
    assert found.price["id"] == "openai/gpt-5.4-mini"
    assert found.price["table"] != price("anthropic/claude-old", input_tokens=1).price["table"]
    assert why(price("openai/gpt-5.4-mini", input_tokens=9, output_tokens=5)) == "unpriced:output_tokens"


def test_overrides_follow_the_same_rules(home: Path) -> None:
    """Cached tokens, tiers and long context in a user's entry work as in the shipped ones (litellm#40006, #30135)."""
    price = overridden(home)
    assert usd(price("openai/long", input_tokens=1_001)) == Decimal("0.0018018")
    assert usd(price("openai/long", input_tokens=1_000)) == Decimal("0.0009")


def test_extends_and_names(home: Path) -> None:
    """`extends` changes what it says and keeps the rest; a replaced entry keeps its snapshot dates and aliases."""
    price = overridden(home)
    found = price("openai/gpt-4o-2024-08-06", input_tokens=1_000_000, output_tokens=1_000_000)
    assert usd(found) == (Decimal("2.5") + 9) * Decimal("0.9")
    assert found.lines[1]["factors"] == {"discount": Decimal("0.9")}
    assert price("openai/prod-chat", input_tokens=1).price["id"] == "openai/gpt-4o"
    arn = "arn:aws:bedrock:eu-west-1:1:application-inference-profile/x"
    assert price(f"openai/{arn}", input_tokens=1).price["id"] == "openai/gpt-4o"


def test_discounts_have_dates(home: Path) -> None:
    """A negotiated discount holds from its day on and covers fees too; a model's own stands over the provider's."""
    price = overridden(home)
    before = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)
    assert usd(price("openai/gpt-4o", at=before, input_tokens=1_000_000)) == Decimal("2.5")
    assert usd(price("openai/gpt-4o", input_tokens=0, web_search_requests=100)) == Decimal("0.9")
    assert usd(price("openai/mine-big-x", input_tokens=1_000_000)) == Decimal("1.5")


def test_user_patterns(home: Path) -> None:
    """The user's own patterns match after the user's exact names, the longest beginning first; nothing else does."""
    price = overridden(home)
    assert price("openai/mine", input_tokens=1).price["id"] == "openai/mine"
    assert price("openai/mine-x", input_tokens=1).price["id"] == "openai/mine-*"
    assert price("openai/mine-big-x", input_tokens=1).price["id"] == "openai/mine-big-*"
    assert why(price("openai/not-mine-x", input_tokens=1)) == "unknown_model"
    assert usd(price("local/whatever:8b", input_tokens=1_000, output_tokens=5)) == 0


def test_gravitees_pairs(home: Path) -> None:
    """Value and unit, as Gravitee writes them, anywhere a price may stand."""
    price = overridden(home)
    assert usd(price("openai/mine", input_tokens=1_000_000, output_tokens=1_000)) == Decimal("0.36") + Decimal(
        "0.00072"
    )
    pair = written(home / "pair.yaml", one("{audio_hour: {value: 0.006, unit: 60}, input: {value: 1, unit: 1000000}}"))
    price = pricer(PriceBook.load(written(home / "pricing.yaml", TABLE), [pair]))
    assert usd(price("openai/m", input_tokens=5, audio_input_seconds=90)) == Decimal("0.009005")


def test_models_of_another_provider(home: Path) -> None:
    """A gateway that sells another's models at list price says so in one line."""
    assert overridden(home)("gateway/claude-old", input_tokens=1).price["id"] == "anthropic/claude-old"


def test_a_price_replaced_at_one_provider_is_not_lent_to_another(home: Path) -> None:
    """A user's own price with OpenAI is no price at Azure, whose models the shipped table borrows: that only the user
    can say, by naming the lender in his own file."""
    shipped = written(home / "pricing.yaml", one("{input: 8, dated: true}") + "  azure: {models_of: openai}\n")
    mine = one("{input: 1}") + "    aliases: {prod: m}\n"
    lent = f"{mine}  azure: {{models_of: openai, aliases: {{deployed: m}}}}\n"
    price = pricer(PriceBook.load(shipped, [written(home / "mine.yaml", mine)]))
    assert usd(price("openai/m", input_tokens=1_000_000)) == 1
    assert usd(price("azure/m", input_tokens=1_000_000)) == 8
    assert usd(price("azure/m-2026-01-01", input_tokens=1_000_000)) == 8
    assert why(price("azure/prod", input_tokens=1)) == "unknown_model"
    price = pricer(PriceBook.load(shipped, [written(home / "mine.yaml", lent)]))
    for name in ("m", "deployed", "prod"):
        assert usd(price(f"azure/{name}", input_tokens=1_000_000)) == 1
    later = one("{input: 3}")
    price = pricer(PriceBook.load(shipped, [home / "mine.yaml", written(home / "later.yaml", later)]))
    assert usd(price("openai/m", input_tokens=1_000_000)) == 3
    assert usd(price("azure/m", input_tokens=1_000_000)) == 1, "lent as it stood when that was said"


def test_later_files_win(home: Path) -> None:
    """Of several extra files the later one wins, and llmtab.yaml over all."""
    first, second = written(home / "a.yaml", one("{input: 1}")), written(home / "b.yaml", one("{input: 2}"))
    shipped = written(home / "pricing.yaml", TABLE)
    assert usd(pricer(PriceBook.load(shipped, [first, second]))("openai/m", input_tokens=1_000_000)) == 2
    book = PriceBook.load(shipped, [second, first], {"providers": {"openai": {"models": {"m": {"input": 3}}}}})
    assert usd(pricer(book)("openai/m", input_tokens=1_000_000)) == 3


def test_errors_of_overrides_name_the_place_in_llmtab_yaml(home: Path) -> None:
    """A mistake under `pricing:` is reported at its line of llmtab.yaml."""
    text = "labels: {}\npricing:\n  providers:\n    openai:\n      models:\n        m: {inptu: 1}\n"
    path = written(home / "llmtab.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_book(home, overrides=loads(text, "x")["pricing"], overrides_path=path)
    assert str(caught.value).startswith(f"{path}:6: pricing.providers.openai.models.m.inptu: unknown key")


def test_missing_and_changed_files(home: Path) -> None:
    """A missing file is named; an edit is seen by the next load whatever the cache says."""
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        PriceBook.load(home / "none.yaml")
    path = written(home / "pricing.yaml", one("{input: 1}"))
    assert usd(pricer(PriceBook.load(path))("openai/m", input_tokens=1_000_000)) == 1
    written(path, one("{input: 2}"))
    assert usd(pricer(PriceBook.load(path))("openai/m", input_tokens=1_000_000)) == 2


def test_a_stale_table_says_so(home: Path) -> None:
    """After 60 days the age is told."""
    book = load_book(home)
    assert book.as_of == "2026-11-20"
    assert book.stale_days(date(2027, 1, 19)) is None
    assert book.stale_days(date(2027, 1, 20)) == 61


def test_the_form_the_wheel_ships(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build hook's parsed form is what a start without any cache folder uses."""
    from llmtab import caching
    from llmtab.pricing import schema

    path = written(home / "pricing.yaml", TABLE)
    bake_shipped(home / "baked", path)
    monkeypatch.setattr(caching, "packaged_folder", lambda: home / "baked")
    monkeypatch.setattr(schema, "validate", lambda *args, **options: pytest.fail("parsed"))
    assert usd(pricer(PriceBook.load(path))("openai/gpt-4o", at=NOW, input_tokens=1_000_000)) == Decimal("2.5")


def test_changes_from_a_day_on(home: Path) -> None:
    """`extends` with `from`: the history before that day stays as it was, what is dated later takes the changes too."""
    path = home / "more.yaml"
    path.write_text("providers: {openai: {models: {gpt-5.6-sol: {extends: gpt-5.6-sol, from: 2026-11-01, input: 3}}}}")
    price = pricer(load_book(home, extra=[path]))
    days = {"2026-08-20": 5, "2026-10-31": 4, "2026-11-01": 3, "2027-02-01": 3}
    for day, rate in days.items():
        found = price("openai/gpt-5.6-sol", at=datetime.fromisoformat(f"{day}T12:00Z"), input_tokens=1000)
        assert usd(found) == Decimal(rate) / 1000, day
    later = price("openai/gpt-5.6-sol", at=datetime(2027, 2, 1, tzinfo=UTC), input_tokens=0, output_tokens=1000)
    assert usd(later) == Decimal("0.015")
