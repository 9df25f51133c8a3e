"""YAML files as plain values: what a user may write, and what the error says where it is wrong."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from llmtab import caching
from llmtab.documents import ConfigError, bake, cached, check, fail, load, loads


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMTAB_HOME", str(tmp_path / "home"))
    return tmp_path


def test_yaml_12_semantics() -> None:
    """Values are what they look like: no floats, no sexagesimals, no `no` = false, no dates as objects."""
    text = (
        "small: 1e-6\nclock: 22:30\nzeros: 010\nword: no\nyes: on\nday: 2026-10-01\nnothing: ~\nmany: 1_000\n"
        "hex: 0x1f\noctal: 0o17\nflag: true\npoint: .5\nrate: 0.10\nbig: +1.5e+3\nstamp: 2001-12-14t21:59:43Z\n"
        "quoted: '1'\nversion: 1.10\n1.10: x\n272000: y\nnull: z\n"
    )
    expected = {
        "small": Decimal("1e-6"),
        "clock": "22:30",
        "zeros": 10,
        "word": "no",
        "yes": "on",
        "day": "2026-10-01",
        "nothing": None,
        "many": 1000,
        "hex": 31,
        "octal": 15,
        "flag": True,
        "point": Decimal("0.5"),
        "rate": Decimal("0.10"),
        "big": Decimal(1500),
        "stamp": "2001-12-14t21:59:43Z",
        "quoted": "1",
        "version": Decimal("1.10"),
        "1.10": "x",
        "272000": "y",
        "null": "z",
    }
    got = loads(text, "x")
    assert got == expected
    assert {key: type(value) for key, value in got.items()} == {key: type(value) for key, value in expected.items()}
    assert str(got["rate"]) == "0.10"


def test_json_is_yaml() -> None:
    """A JSON document (a Gravitee policy, for one) is read as it stands."""
    assert loads('{"a": [1, 2.5, "x", null, true]}', "x") == {"a": [1, Decimal("2.5"), "x", None, True]}


def test_an_empty_file_is_nothing() -> None:
    """A file with only comments holds None."""
    assert loads("# nothing yet\n", "x") is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key (first in line 1)"),
        ("1: a\n'1': b\n", 2, "duplicate key"),
        ("a: 1\nb:\n\tc: 2\n", 3, "'\\t'"),
        ("a: [1, 2\nb: 3\n", 2, "not YAML"),
        ("a: b: c\n", 1, "mapping values"),
        ("--- 1\n--- 2\n", 2, "another document"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\nb: &x [*x]\n", 2, "alias inside its own anchor"),
        ("base: &b {a: 1}\n<<: *b\n", 2, "merge key"),
        ("a: 1\nb: !!python/name:os.system x\n", 2, "tag"),
        ("a: 1\nb: !thing {c: 1}\n", 2, "tag"),
        ("a: .inf\n", 1, "finite"),
        ("a: 1\nb: .nan\n", 2, "finite"),
        ("%YAML 1.1\n---\na: 22:30\n", 1, "directive"),
        ("a: 1\n[1, 2]: 3\n", 2, "expected text"),
        ("a: " + "9" * 5000, 1, "finite"),
        ("[" * 1500, None, "nested too deeply"),
    ],
)
def test_errors_name_the_line(text: str, line: int | None, words: str) -> None:
    """A broken file is refused in one line that names the place."""
    with pytest.raises(ConfigError) as caught:
        loads(text, "prices.yaml")
    error = caught.value
    assert (error.file, error.line) == ("prices.yaml", line)
    assert words in str(error)
    assert "\n" not in str(error)
    assert str(error).startswith(f"prices.yaml:{line}: " if line else "prices.yaml: ")


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that is missing, a folder, or not text says so."""
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: is not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_load_twice_gives_the_same_and_sees_edits(home: Path) -> None:
    """The cached form equals the parsed one, Decimals and all; an edit is seen at once."""
    path = home / "a.yaml"
    path.write_text("\ufeffa: 1.50\nb: {c: [1, 1e3, x]}\n")
    first, second = load(path), load(path)
    assert first == second == load(path, cache=False)
    assert (str(second["a"]), str(second["b"]["c"][1])) == ("1.50", "1E+3")
    assert list((home / "home" / "cache").glob("*.json"))
    path.write_text("a: 2\n")
    assert load(path) == {"a": 2}


@pytest.mark.parametrize("damage", [b"", b"x", b"\n", None])
def test_a_corrupt_cache_is_never_believed(home: Path, damage: bytes | None) -> None:
    """Emptied, overwritten or edited cache files are rebuilt from the source."""
    path = home / "a.yaml"
    path.write_text("price: 2.5\n")
    load(path)
    (file,) = (home / "home" / "cache").glob("*.json")
    file.write_bytes(file.read_bytes().replace(b"2.5", b"9.9") if damage is None else damage)
    assert load(path) == {"price": Decimal("2.5")}
    assert b"2.5" in file.read_bytes(), "the damaged file was replaced"


def test_a_cache_of_another_key_is_not_believed(home: Path) -> None:
    """A cache file copied under another content's name is not used."""
    one, two = home / "one.yaml", home / "two.yaml"
    one.write_text("a: 1\n")
    two.write_text("a: 2\n")
    load(one)
    (first,) = (home / "home" / "cache").glob("*.json")
    load(two)
    (second,) = set((home / "home" / "cache").glob("*.json")) - {first}
    second.write_bytes(first.read_bytes())
    assert load(two) == {"a": 2}


def test_cached_builds_once_a_version_and_content(home: Path) -> None:
    """`build` runs again for another version, another extra, another content of any file; not otherwise."""
    paths = [home / "a", home / "b"]
    for path in paths:
        path.write_text("x")
    calls: list[int] = []

    def build() -> Any:
        calls.append(1)
        return {"n": len(calls)}

    assert cached(paths, "v1", build) == cached(paths, "v1", build) == {"n": 1}
    assert cached(paths, "v2", build) == {"n": 2}
    assert cached(paths, "v1", build, extra="on") == {"n": 3}
    paths[1].write_text("y")
    assert cached(paths, "v1", build) == {"n": 4}


def test_an_unwritable_cache_folder_is_fine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place for the cache everything still works."""
    (home / "file").write_text("")
    monkeypatch.setenv("LLMTAB_HOME", str(home / "file"))
    path = home / "a.yaml"
    path.write_text("a: 1\n")
    assert load(path) == load(path) == {"a": 1}


def test_baked_forms_are_used_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the build hook baked beside the package is used without building anything."""
    path = home / "a.yaml"
    path.write_text("a: 1\n")
    monkeypatch.setattr(caching, "packaged_folder", lambda: home / "baked")
    bake([path], "v", lambda: {"from": "wheel"}, home / "baked")
    assert cached(path, "v", lambda: pytest.fail("built")) == {"from": "wheel"}


def test_the_cache_folder_does_not_grow_without_end(home: Path) -> None:
    """Old parsed forms of an often edited file go away."""
    path = home / "a.yaml"
    for number in range(caching.KEPT_FILES + 5):
        path.write_text(f"a: {number}\n")
        load(path)
    assert len(list((home / "home" / "cache").glob("*.json"))) == caching.KEPT_FILES


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_the_cached_form_is_lossless(value: Any) -> None:
    """Whatever a document may hold survives the cache, a Decimal to the last digit."""
    got = caching.decode(caching.encode(value))
    assert got == value
    assert repr(got) == repr(value)


class Limit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    usd: Decimal = Field(ge=0)
    window: str = "day"


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limits: dict[str, Limit | str] = {}
    hosts: list[str] = []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "limits:\n  web:\n    usd: 1\n    windw: day\n",
            "c.yaml:4: limits.web.windw: unknown key, expected 'window'?",
        ),
        ("limits:\n  web: {window: day}\n", "c.yaml:2: limits.web.usd: is missing, expected a value"),
        ("limits:\n  web:\n    usd: -1\n", "c.yaml:3: limits.web.usd: -1, expected greater than or equal to 0"),
        ("hosts:\n- a\n- 3\n", "c.yaml:3: hosts.1: 3, expected string"),
        ("hosts: {a: b}\nzzz: 1\nyyy: 2\n", "c.yaml:1: hosts: a mapping, expected list (and 2 more)"),
        ("- 1\n", "c.yaml:1: a list, expected dictionary or instance of Config"),
    ],
)
def test_check_names_the_first_problem(home: Path, text: str, says: str) -> None:
    """A value of the wrong kind is one line: file, line, dotted key, what is wrong and what was expected."""
    path = home / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        check(Config, load(path), path)
    assert str(caught.value).removeprefix(f"{home}/").replace("valid ", "") == says.replace("valid ", "")


def test_check_gives_the_model(home: Path) -> None:
    """Good data comes back as the model, Decimals untouched by floats; a TypeAdapter works as well."""
    data = loads("limits: {web: {usd: 0.10}, api: unlimited}\n", "x")
    config = check(Config, data, home / "x")
    assert (str(config.limits["web"].usd), config.limits["api"]) == ("0.10", "unlimited")
    assert check(TypeAdapter(list[int]), [1, 2], "x") == [1, 2]
    with pytest.raises(ConfigError, match=r"^x: 0: "):
        check(TypeAdapter(list[int]), ["a"], "x")


def test_fail_finds_the_line_of_a_place(home: Path) -> None:
    """An error made by hand carries the line of the deepest part that exists, also from text without a file."""
    path = home / "c.yaml"
    path.write_text("a:\n  b:\n  - x\n  - y: 1\n")
    assert fail(path, ["a", "b", 1, "y"], "no").line == 4
    assert fail(path, ["a", "b", 1, "missing"], "no").line == 4
    assert fail(path, ["a", "zzz"], "no").line == 1
    assert str(fail("c.yaml", ["a", "b"], "is wrong", text="a:\n  b: 1\n")) == "c.yaml:2: a.b: is wrong"
    assert str(fail(home / "gone.yaml", ["a"], "is wrong")) == f"{home}/gone.yaml: a: is wrong"


def test_a_cached_load_imports_neither_pydantic_nor_ruamel(home: Path) -> None:
    """A warm start does not pay for the parser or the validator."""
    path = home / "a.yaml"
    path.write_text("a: 1.5\n")
    load(path)
    code = (
        "import sys, json; from pathlib import Path; from llmtab.documents import load;"
        "load(Path(sys.argv[1])); print(json.dumps([m for m in ('pydantic', 'ruamel.yaml') if m in sys.modules]))"
    )
    run = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent / "addon")
    assert json.loads(done.stdout) == []
