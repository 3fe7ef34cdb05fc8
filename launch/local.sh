#!/usr/bin/env bash
# Trains on every device of this machine:  launch/local.sh configs/folder.py WORKDIR --config.data.dir=PREPARED
# On GPUs add --config.model.dtype=bfloat16.
# The same line again resumes. Ctrl-C or kill saves first; before the first step, when nothing is to be saved, it ends at once.
# On processors GLIBC_TUNABLES=glibc.malloc.hugetlb=1 before it takes less memory, and 9 to 18 % more time at 128 and 256 px.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: launch/local.sh CONFIG.py WORKDIR [--config.GROUP.NAME=VALUE ...]" >&2
  exit 2
fi
config=$1 workdir=$2
shift 2
repository=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=/dev/null
. "$repository/launch/gpu_env.sh"
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}"
exec python -m fundusgan_jax.main --config="$config" --workdir="$workdir" "$@"
