import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from haat.kernel.errors import EngineFailed, EngineMissing, EngineTimeout, Overloaded
from haat.providers import programs
from haat.providers.programs import call_deadline, missing_program, run_program, stop_programs


def running(marker: str) -> bool:
    """Tell whether a process with this command line is alive."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in command:
                return True
    return False


def test_input_goes_in_on_stdin_and_output_comes_back() -> None:
    assert run_program(["cat"], "नमस्ते".encode(), seconds=5) == "नमस्ते".encode()


def test_a_program_sees_only_the_environment_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAAT_MASTER_KEY", "secret")
    assert b"secret" not in run_program(["env"], b"", seconds=5)


def test_a_missing_program_is_named_with_its_remedy() -> None:
    with pytest.raises(EngineMissing, match="make engines"):
        run_program(["haat-no-such-engine"], b"", seconds=5)
    assert missing_program("haat-no-such-engine", "no-such-package") == (
        "haat-no-such-engine is not installed: run `make engines` as root, or `apt-get install no-such-package`."
    )
    assert missing_program("cat", "coreutils") is None


@pytest.mark.parametrize("script", ["exit 3", "kill -SEGV $$"])
def test_a_program_that_crashes_is_a_failed_engine(script: str) -> None:
    with pytest.raises(EngineFailed):
        run_program(["sh", "-c", script], b"", seconds=5)


def test_a_slow_program_is_killed_with_its_children() -> None:
    began = time.monotonic()
    with pytest.raises(EngineTimeout):
        run_program(["sh", "-c", "sleep 86397 | cat"], b"", seconds=0.3)
    assert time.monotonic() - began < 5
    while running("86397"):  # killed, and gone when the system comes to it
        assert time.monotonic() - began < 20
        time.sleep(0.01)


def test_a_hung_program_ends_although_the_process_that_started_it_was_killed() -> None:
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from haat.providers import programs; programs._WATCHDOG_GRACE = 0\n"
            "programs.run_program(['sleep', '86396'], b'', seconds=1)",
        ]
    )
    deadline = time.monotonic() + 20
    while not running("86396"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    starter.kill()
    starter.wait()
    while running("86396"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_several_programs_of_one_call_share_its_deadline() -> None:
    token = call_deadline.set(time.monotonic() + 0.2)
    try:
        with pytest.raises(EngineTimeout):
            run_program(["sleep", "86396"], b"", seconds=60)
    finally:
        call_deadline.reset(token)


def test_a_program_that_does_not_read_its_input_is_no_harm() -> None:
    assert run_program(["true"], b"x" * 1_000_000, seconds=5) == b""


def test_there_are_only_so_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_places", threading.BoundedSemaphore(1))
    held = threading.Thread(target=run_program, args=(["cat"], b""), kwargs={"seconds": 5})
    with programs._places:
        with pytest.raises(Overloaded) as refusal:
            run_program(["cat"], b"", seconds=0.05)
        held.start()
    held.join()
    assert refusal.value.extensions == {"retry_after": 2}


def test_stopping_kills_what_runs() -> None:
    failures: list[Exception] = []

    def call() -> None:
        try:
            run_program(["sleep", "86395"], b"", seconds=60)
        except EngineFailed as error:
            failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    deadline = time.monotonic() + 10
    while not programs._running and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    stop_programs()
    caller.join(10)
    assert len(failures) == 1


def test_every_package_that_make_engines_installs_is_one_debian_knows() -> None:
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n", *programs.DEBIAN_PACKAGES],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.count(" ii ") == len(programs.DEBIAN_PACKAGES)
