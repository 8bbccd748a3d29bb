#!/bin/sh
# Makes .venv with exactly what requirements.lock names, and haat itself. Does nothing when that is done.
# PYTHON chooses the interpreter, VENV another place for the environment, LOCK another list than requirements.lock.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
lock=${LOCK:-requirements.lock}

in_range() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        in_range "$PYTHON" && echo "$PYTHON" && return
        echo "$PYTHON is not a Python 3.11, 3.12 or 3.13: give another with 'make setup PYTHON=python3.12'." >&2
        return 1
    fi
    for candidate in "$venv/bin/python" python3 python3.13 python3.12 python3.11; do
        in_range "$candidate" && echo "$candidate" && return
    done
    echo "Haat needs Python 3.11, 3.12 or 3.13, and none was found: install one" >&2
    echo "(Debian: apt-get install python3 python3-venv), or name yours with 'make setup PYTHON=/path/to/python'." >&2
    return 1
}

digest() {
    cat "$@" | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

python=$(choose_python)
wanted="$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")') $(digest "$lock")"
if ! in_range "$venv/bin/python" || [ "$(cat "$venv"/.lock-installed 2>/dev/null)" != "$wanted" ]; then
    echo "Setting up $venv with $("$python" --version) …"
    case $python in
    "$venv"/*) ;; # it is this very interpreter: install over it
    *)
        if ! said=$("$python" -m venv --clear "$venv" 2>&1); then
            echo "$said" >&2
            echo "The venv module of $python does not work: on Debian run 'apt-get install python3-venv'." >&2
            exit 1
        fi
        ;;
    esac
    # The lock is complete, so nothing is left to resolve: older pips ask for a newer release where one asks for
    # a package with an extra, and find no hash for it.
    "$venv"/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
        -r "$lock"
    echo "$wanted" >"$venv"/.lock-installed
    rm -f "$venv"/.project-installed
fi
project=$(digest pyproject.toml)
if [ "$(cat "$venv"/.project-installed 2>/dev/null)" != "$project" ]; then
    "$venv"/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation \
        --editable .
    echo "$project" >"$venv"/.project-installed
fi
