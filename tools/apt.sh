#!/bin/sh
# Installs Debian packages that are not there yet: tools/apt.sh WHAT_FOR PACKAGE…
set -eu
what_for=$1
shift
missing=""
for package in "$@"; do
    # dpkg-query also knows packages that were removed, so the state itself is asked for.
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "For $what_for these programs are missing, by their Debian names:$missing. Install them your system's way." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "For $what_for run: sudo apt-get install$missing" >&2
    exit 1
fi
echo "Installing for $what_for:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # one word a package
apt-get install -y -qq --no-install-recommends $missing >/dev/null
