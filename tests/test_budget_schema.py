"""`budgets:` and `alerts:` in llmtab.yaml: what they may say, and what is said of a mistake."""

import re
from pathlib import Path

import pytest

from llmtab.budgets.policy import policy
from llmtab.config import ConfigError, load

GUIDE = Path(__file__).parents[1] / "docs" / "budgets.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_guides_examples_work(number: int, tmp_path: Path) -> None:
    """Every piece of llmtab.yaml in the guide can be pasted as it stands."""
    (tmp_path / "llmtab.yaml").write_text(EXAMPLES[number])
    config = load(tmp_path / "llmtab.yaml")
    found = policy(config.sections.get("budgets"), config.timezone)
    assert found or "alerts" in config.sections


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("- 100 EUR per month", 2, "expected an amount"),
        ("- {limit: 1 USD per day, mach: {project: x}}", 2, "expected 'match'"),
        ("- {limit: 1 USD per day, weight: pictures}", 2, "no counter"),
        ("- {limit: 1 USD per day, zone: Mars/Base}", 2, "IANA"),
        ("- {limit: 1 USD per day, burst: 5 USD}", 2, "no more than the limit"),
        ("- {limit: 5 USD per day, burst: 2 requests}", 2, "an amount in USD"),
        ("- {limit: 5 USD per day, reserve: best}", 2, "expected 'worst' or 'usual'"),
        ("{tiers: {by: colour, levels: {gold: 1 USD}}}", 2, "expected header:NAME"),
        ("{store: {redis: 'http://x'}}", 2, "redis://host"),
        ("- {limit: 5 USD per day, soft: 200%}", 2, "at most the whole of it"),
        ("- {limit: 5 USD per day, soft: 0%}", 2, "more than nothing"),
        ("- {limit: 5 USD per day, soft: 80}", 2, "80, expected a share like 20%"),
        ("- {limit: 5 USD per day, burst: 20}", 2, "20, expected a share like 20%"),
        ("- {limit: 5 USD per day, burst: [x]}", 2, "a list, expected a share like 20%"),
        ("- {limit: 5}", 2, "5, expected an amount and a time"),
        ("- 5", 2, "5, expected an amount and a time"),
        ("- 1 USD per 9999 years", 2, "at most 1000 years"),
        ("{limits: [{limit: 1 USD, name: a}, {limit: 2 USD, name: a}]}", 1, "two limits are named 'a'"),
        ("[{limit: 1 USD, name: a}, 1 USD, {limit: 2 USD, name: a}]", 1, "two limits are named 'a'"),
        ("{tiers: {by: key, levels: {x: {limit: 1 USD, name: a}}}, limits: [{limit: 2 USD, name: a}]}", 1, "'a'"),
        ("{tiers: {by: key, levels: {}}}", 2, "at least one tier"),
        ("{tiers: {by: key, levels: [x]}}", 2, "at least one tier"),
        ("{tiers: gold}", 2, "gold, expected a mapping with by, levels"),
        ("5", 1, "5, expected a list of limits"),
        ("1 USD per day", 1, "expected a list of limits"),
        ("", 1, "nothing, expected a list of limits"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, expected: str, tmp_path: Path) -> None:
    """File, line and what was expected."""
    (tmp_path / "llmtab.yaml").write_text(f"budgets:\n  {text}\n")
    with pytest.raises(ConfigError, match=expected) as error:
        load(tmp_path / "llmtab.yaml")
    assert error.value.line == line


def test_a_time_may_be_a_fraction_of_a_second(tmp_path: Path) -> None:
    """`throttle: 0.5` is half a second, as `0.5s` is."""
    (tmp_path / "llmtab.yaml").write_text("budgets: [{limit: 1 USD per day, throttle: 0.5}]\n")
    [one] = policy(load(tmp_path / "llmtab.yaml").sections["budgets"]).limits.all
    assert one.throttle == 0.5


def test_an_alert_needs_an_address(tmp_path: Path) -> None:
    """A webhook is an http address."""
    (tmp_path / "llmtab.yaml").write_text("alerts: {webhook: 'ftp://x'}\n")
    with pytest.raises(ConfigError, match="expected an address like https"):
        load(tmp_path / "llmtab.yaml")


def test_limits_have_the_zone_of_the_file(tmp_path: Path) -> None:
    """A day begins where `timezone` says, unless a limit or all budgets say otherwise."""
    (tmp_path / "llmtab.yaml").write_text(
        "timezone: Europe/Berlin\nbudgets: [1 USD per day, {limit: 1 USD per day, zone: Asia/Tokyo}]\n"
    )
    config = load(tmp_path / "llmtab.yaml")
    found = policy(config.sections["budgets"], config.timezone)
    assert [str(one.window.zone) for one in found.limits.all] == ["Europe/Berlin", "Asia/Tokyo"]
