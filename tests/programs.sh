#!/bin/sh
# Install what tests need beside Python packages: Chromium for the page, npm's openai package for the API.
# Where that is not possible this says so and succeeds: the tests that need them are skipped by name, and fail with CI=true.
set -u
cd "$(dirname "$0")/.."

found() {
    for name in "$@"; do command -v "$name" >/dev/null && return; done
    return 1
}

if [ -z "${CHROMIUM:-}" ] && ! found chromium chromium-browser google-chrome google-chrome-stable chrome; then
    if [ "$(id -u)" = 0 ] && found apt-get; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
    fi
    found chromium || echo "Chromium is not installed (apt-get install chromium): tests of the page will be skipped"
fi
if [ ! -d tests/serving/openai_node/node_modules/openai ] && found npm; then
    npm install --silent --no-fund --no-audit --prefix tests/serving/openai_node
fi
[ -d tests/serving/openai_node/node_modules/openai ] || echo "npm's openai package is not installed: its test will be skipped"
exit 0
