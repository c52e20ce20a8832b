#!/bin/sh
# Makes .venv with a Python >= 3.12 and the locked packages; does nothing when it is up to date.
# Looks for an interpreter on PATH, then among pyenv's versions, then asks uv to fetch one.
set -eu
cd "$(dirname "$0")/.."

is_usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

find_python() {
    for name in python3.13 python3.12 python3.14 python3 python; do
        # A pyenv shim can be on PATH and still refuse to run, so each candidate is tried.
        path=$(command -v "$name" 2>/dev/null) || continue
        if is_usable "$path"; then echo "$path"; return; fi
    done
    root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}
    for path in "$root"/versions/3.13.*/bin/python3 "$root"/versions/3.12.*/bin/python3 "$root"/versions/3.1[4-9].*/bin/python3; do
        if [ -x "$path" ] && is_usable "$path"; then echo "$path"; return; fi
    done
    uv=$(command -v uv 2>/dev/null || true)
    if [ -z "$uv" ] && command -v python3 >/dev/null 2>&1; then
        python3 -m venv .venv-uv >/dev/null 2>&1 && .venv-uv/bin/pip install --quiet uv >&2 && uv=.venv-uv/bin/uv
    fi
    if [ -n "$uv" ] && "$uv" python install 3.12 >&2; then
        "$uv" python find --no-project 3.12
        return
    fi
    echo "send_va needs Python 3.12 or newer: none on PATH, none under pyenv, and uv could not fetch one." >&2
    echo "Install one (pyenv install 3.12, or your system's package) and run this again." >&2
    exit 1
}

stamp=.venv/installed-from
wanted=$(cat requirements.lock pyproject.toml | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c 'import send_va' 2>/dev/null; then
    exit 0
fi
if [ -x .venv/bin/python ] && is_usable .venv/bin/python; then
    echo "Updating .venv to requirements.lock"
else
    python=$(find_python)
    echo "Setting up .venv with $("$python" --version) (a few minutes, once)"
    "$python" -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" > "$stamp"
