import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from haat.plugins import registry
from haat.plugins.order import Place
from haat.plugins.registry import Loaded, close_left, discover, is_on
from haat.plugins.switches import Switch, Switches, UnreadableSwitches, read, stamp, write

HEAD = "from haat.plugins.api import *\n"
STAGES = {"request": (Place("first", 100), Place("cache", 700))}
ON = Switch(True)


def put(folder: Path, **codes: str) -> Switches:
    for name, code in codes.items():
        (folder / f"{name}.py").write_text(HEAD + code)
    return Switches(dict.fromkeys(codes, ON))


def load(folder: Path, switches: Switches, sections: dict[str, Any] | None = None, **options: Any) -> Loaded:
    return registry.load(folder, switches, sections or {}, STAGES, group="haat-nobody", **options)


def state(loaded: Loaded, name: str) -> tuple[str, str]:
    return next((row.state, row.reason) for row in loaded.rows if row.name == name)


PLAIN = """
class P(Plugin):
    @hookimpl
    def haat_on_request(self, call): pass
"""


def test_plugins_of_the_house_and_of_the_folder_are_off_until_switched_on(tmp_path: Path) -> None:
    put(tmp_path, mine=PLAIN)
    loaded = load(tmp_path, Switches())
    assert {row.name: row.state for row in loaded.rows} == {"masking": "off", "profanity": "off", "mine": "off"}
    assert loaded.running == {}


def test_a_plugin_of_an_installed_package_is_on_unless_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_gate.py").write_text(HEAD + PLAIN)
    info = tmp_path / "acme_gate-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_gate\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text("[haat-trial]\ngate = acme_gate:P\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = next(found for found in discover(tmp_path / "none", "haat-trial") if found.name == "gate")
    assert found.source == "package"
    assert is_on(found, Switches())
    loaded = registry.load(tmp_path / "none", Switches(), {}, STAGES, group="haat-trial")
    assert list(loaded.running) == ["gate"]
    off = Switches({"gate": Switch(False)})
    assert registry.load(tmp_path / "none", off, {}, STAGES, group="haat-trial").running == {}
    sys.modules.pop("acme_gate")


def test_order_numbers_wishes_and_tries_place_plugins_among_the_stages(tmp_path: Path) -> None:
    switches = put(
        tmp_path,
        late=PLAIN.replace("P(Plugin):", "P(Plugin):\n    order = 800"),
        wish=PLAIN.replace("P(Plugin):", "P(Plugin):\n    order = 900\n    before = ('cache',)"),
        keen=PLAIN.replace("@hookimpl", "@hookimpl(tryfirst=True)"),
        back="class B(Plugin):\n    @hookimpl\n    def haat_on_response(self, answer): pass\n",
    )
    loaded = load(tmp_path, switches)
    assert loaded.order["request"] == ["keen", "first", "back", "wish", "cache", "late"]


def test_a_plugin_runs_after_what_it_requires_and_not_without(tmp_path: Path) -> None:
    switches = put(tmp_path, a=PLAIN.replace("P(Plugin):", "P(Plugin):\n    requires = ('b',)\n    order = 1"), b=PLAIN)
    assert load(tmp_path, switches).order["request"] == ["first", "b", "a", "cache"]
    without = load(tmp_path, Switches({"a": ON}))
    assert state(without, "a") == ("left out", "it requires b, which does not run")
    assert without.running == {}


def test_configuration_is_checked_by_the_plugins_own_model(tmp_path: Path) -> None:
    switches = put(
        tmp_path,
        p="""
class C(Configuration):
    size: int = 1
class P(Plugin):
    Configuration = C
    @hookimpl
    def haat_on_request(self, call): pass
""",
    )
    loaded = load(tmp_path, switches, {"p": {"size": 7}})
    assert loaded.running["p"].plugin.configuration.size == 7  # type: ignore[attr-defined]  # what the file above defines
    assert state(load(tmp_path, switches, {"p": {"size": "many"}}), "p")[1].startswith(
        "its configuration does not fit: size"
    )
    assert state(load(tmp_path, switches, {"p": {"sise": 1}}), "p")[0] == "left out"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module\n", "it can't be loaded: ModuleNotFoundError"),
        ("raise SystemExit\n", "it can't be loaded: SystemExit"),
        ("def (:\n", "it can't be loaded: SyntaxError"),
        (
            "class P(Plugin):\n    def __init__(self, configuration): raise OSError('no')\n",
            "it can't begin: OSError: no",
        ),
        ("class P(Plugin):\n    @hookimpl\n    def haat_nothing(self): pass\n", "there is no hook called haat_nothing"),
        ("class P(Plugin):\n    @hookimpl\n    async def haat_on_request(self, call): pass\n", "is a coroutine"),
        ("class P(Plugin):\n    @hookimpl(wrapper=True)\n    def haat_on_request(self, call): yield\n", "is a wrapper"),
        ("class P(Plugin):\n    @hookimpl\n    def haat_on_request(self, nobody): pass\n", "nobody"),
        ("class P(Plugin): pass\nclass Q(Plugin): pass\n", "has 2 plugin classes"),
    ],
)
def test_what_can_not_run_is_left_out_with_its_reason(tmp_path: Path, code: str, reason: str) -> None:
    loaded = load(tmp_path, put(tmp_path, p=code, good=PLAIN))
    assert state(loaded, "p")[0] == "left out"
    assert reason in state(loaded, "p")[1]
    assert list(loaded.running) == ["good"]


def test_a_module_of_functions_is_a_plugin_too(tmp_path: Path) -> None:
    loaded = load(tmp_path, put(tmp_path, m="@hookimpl\ndef haat_on_usage(usage): pass\n"))
    assert list(loaded.hooks["m"]) == ["haat_on_usage"]
    assert state(load(tmp_path, Switches({"m": ON}), {"m": {"a": 1}}), "m")[0] == "left out"


def test_a_guard_that_can_not_run_is_missed(tmp_path: Path) -> None:
    guard = "class G(Plugin):\n    fails = 'closed'\n    def __init__(self, configuration): raise OSError\n"
    switches = put(tmp_path, guard=guard)
    loaded = load(tmp_path, switches)
    assert loaded.missing_guards == ("guard",)
    assert state(loaded, "guard")[0] == "refusing"
    (tmp_path / "guard.py").write_text("import nothing_like_it\n")
    assert load(tmp_path, Switches({"guard": Switch(True, closed=True)})).missing_guards == ("guard",)
    (tmp_path / "guard.py").unlink()
    assert load(tmp_path, Switches({"guard": Switch(True, closed=True)})).missing_guards == ("guard",)
    assert load(tmp_path, Switches({"guard": Switch(False, closed=True)})).missing_guards == ()


def test_what_has_not_changed_runs_on_and_what_has_is_made_anew(tmp_path: Path) -> None:
    switches = put(tmp_path, a=PLAIN, b=PLAIN)
    first = load(tmp_path, switches)
    (tmp_path / "b.py").write_text(HEAD + PLAIN + "# changed\n")
    second = load(tmp_path, switches, before=first)
    assert second.running["a"] is first.running["a"]
    assert second.running["b"] is not first.running["b"]


def test_a_plugin_that_has_become_unfit_runs_on_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    switches = put(tmp_path, a=PLAIN)
    first = load(tmp_path, switches)
    (tmp_path / "a.py").write_text("def (\n")
    second = load(tmp_path, switches, before=first)
    assert second.running["a"] is first.running["a"]
    assert state(second, "a")[1].startswith("it runs as it was before")


def test_what_is_taken_out_is_closed_and_what_stays_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = """
import logging
class P(Plugin):
    def close(self): logging.getLogger("closed").warning("closed %s", type(self).__module__)
"""
    switches = put(tmp_path, a=code, b=code)
    first = load(tmp_path, switches)
    second = load(tmp_path, Switches({"a": ON}), before=first)
    with caplog.at_level(logging.WARNING):
        close_left(first, second)
    assert "closed haat_plugin_b" in caplog.text and "closed haat_plugin_a" not in caplog.text


def test_a_file_that_anybody_may_write_is_not_run(tmp_path: Path) -> None:
    switches = put(tmp_path, a=PLAIN)
    (tmp_path / "a.py").chmod(0o666)
    assert "written by anybody" in state(load(tmp_path, switches), "a")[1]


def test_nobody_takes_the_name_of_a_built_in_stage_or_of_another_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    switches = put(tmp_path, cache=PLAIN, masking=PLAIN)
    loaded = load(tmp_path, switches, {"masking": {"services": ["*"]}})
    assert state(loaded, "cache") == ("left out", "a built-in stage has its name")
    assert type(loaded.running["masking"].plugin).__name__ == "Masking"
    assert "another one has its name" in caplog.text


def test_switches_are_kept_whole_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "plugins.json"
    assert read(path) == Switches() and stamp(path) == (0, 0, 0)
    assert write(path, "a", Switch(True, True)) == 1
    before = stamp(path)
    assert write(path, "b", Switch(False)) == 2
    assert stamp(path) != before
    assert write(path) == 3
    assert read(path) == Switches({"a": Switch(True, True), "b": Switch(False)}, 3)
    assert sorted(file.name for file in path.parent.iterdir()) == ["plugins.json", "plugins.json.lock"]
    path.write_text("{")
    with pytest.raises(UnreadableSwitches):
        read(path)


def test_of_many_who_switch_at_once_none_undoes_anothers(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "plugins.json"
    names = [f"plugin-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        revisions = list(pool.map(lambda name: write(path, name, Switch(True)), names))
    assert sorted(revisions) == list(range(1, 41))
    assert read(path) == Switches(dict.fromkeys(names, Switch(True)), 40) and set(read(path).plugins) == set(names)
