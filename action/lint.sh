#!/usr/bin/env bash
# Runs sspolicy lint with the flags ARGS on FILES. The shell splits and expands both lists.
set -euo pipefail
: "${DIR:?}" "${ARGS=}" "${FILES:?}"
echo "::add-matcher::$(cd "$(dirname "$0")/.." && pwd)/problem-matcher.json"
# shellcheck disable=SC2086
"$DIR/sspolicy" lint $ARGS $FILES
