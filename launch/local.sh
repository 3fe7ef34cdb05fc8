#!/usr/bin/env bash
# Trains on every device of this machine:  launch/local.sh configs/folder.py WORKDIR --config.data.dir=PREPARED
# The same line again resumes. Ctrl-C or kill saves first; before the first step, when nothing is to be saved, it ends at once.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: launch/local.sh CONFIG.py WORKDIR [--config.GROUP.NAME=VALUE ...]" >&2
  exit 2
fi
config=$1 workdir=$2
shift 2
repository=$(cd "$(dirname "$0")/.." && pwd)
# On processors: memory in pages of 2 MiB, which take less memory; no faster at 128 px, some percent at 1024 (docs/scaling.md).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}"
exec python -m fundusgan_jax.main --config="$config" --workdir="$workdir" "$@"
