#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU VM slice, one process a host:
#   ZONE=us-central1-a launch/tpu_vm.sh TPU_NAME configs/folder.py WORKDIR --config.data.dir=PREPARED
# The repository is in ~/fundusgan_jax of every host (or in $REPOSITORY there) with its .venv (pip install '.[tpu]');
# WORKDIR and PREPARED are on a disk that all hosts mount (Filestore). Ctrl-C, or SIGTERM to this script, saves and
# stops all hosts; so does the shutdown of a preempted host. The same line resumes. Exit code: what gcloud
# makes of the trainer's (0 all steps are done, 75 after a stop, 2 a mistake).
set -euo pipefail
if [ $# -lt 3 ] || [ -z "${ZONE:-}" ]; then
  echo "usage: ZONE=ZONE launch/tpu_vm.sh TPU_NAME CONFIG.py WORKDIR [--config.GROUP.NAME=VALUE ...]" >&2
  exit 2
fi
name=$1 config=$2 workdir=$3
shift 3
printf -v flags ' %q' --config="$config" --workdir="$workdir" "$@"
repository=${REPOSITORY:-fundusgan_jax} # below the home folder there
pid_file=.fundusgan_jax.pid
on_host() { # on_host WORKER COMMAND
  gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker="$1" --command="$2"
}
stopped=""
# shellcheck disable=SC2317,SC2329 # the trap calls it
stop() {
  stopped=yes
  # One process that hears SIGTERM stops all. ssh passes no signals on, so it is sent there.
  on_host 0 "kill -TERM \$(cat $pid_file)" || true
}
trap stop TERM INT
# exec keeps the number in the file: it is the trainer's.
on_host all "echo \$\$ > $pid_file; cd $(printf %q "$repository") && . .venv/bin/activate && exec python -m fundusgan_jax.main$flags" &
session=$!
code=0
wait "$session" || code=$?
while [ -n "$stopped" ]; do # the signal ended the wait, and the trainer is saving
  stopped="" code=0
  wait "$session" || code=$?
done
exit "$code"
