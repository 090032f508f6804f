#!/bin/sh
# Installs what tests/report looks at pages with: Chromium, and a font, on Debian 12 or later or a Debian-like system.
# Quick when both are there.
set -eu

command -v chromium >/dev/null && exit 0
# A person's machine without root or apt runs all other tests; pytest skips these and names them.
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Tests in a browser will be skipped: installing chromium needs root and apt-get." >&2
    exit 0
fi

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null
}

# Package lists that are absent or out of date make the first attempt fail within a second or two.
install || { apt-get update -qq && install; } || echo "Tests in a browser will be skipped: chromium could not be installed." >&2
