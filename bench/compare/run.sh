#!/usr/bin/env bash
# Plumb and its peers doing the same work in turn, and one table of ratios: see run.py --help.
exec python3 "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/run.py" "$@"
