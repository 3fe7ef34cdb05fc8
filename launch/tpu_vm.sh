#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU VM slice, one process a host; here a slice of 32 chips:
#   ZONE=us-central1-a launch/tpu_vm.sh TPU_NAME configs/folder.py WORKDIR \
#     --config.data.dir=PREPARED --config.train.batch_size=128 --config.model.dtype=bfloat16 --weights_dir=WEIGHTS
# The batch is of all chips together, a multiple of their number. The repository is in ~/fundusgan_jax of every host (or
# in $REPOSITORY there) with its .venv (pip install '.[tpu]'); WORKDIR, PREPARED and WEIGHTS (python -m
# fundusgan_jax.weights fetch vgg16 lpips_vgg --weights_dir=WEIGHTS) are on a disk that all hosts mount (Filestore). With
# FUNDUSGAN_JAX_COMPILED=FOLDER, there too, only the first start compiles. Ctrl-C, or SIGTERM or SIGHUP to this script,
# saves and stops all hosts; so does the shutdown of a preempted host. The same line resumes. Exit code: what gcloud
# makes of the trainer's (0 all steps are done, 75 after a stop, 143 after one
# before the first step, 2 a mistake).
set -euo pipefail
if [ $# -lt 3 ] || [ -z "${ZONE:-}" ]; then
  echo "usage: ZONE=ZONE launch/tpu_vm.sh TPU_NAME CONFIG.py WORKDIR [--config.GROUP.NAME=VALUE ...]" >&2
  exit 2
fi
name=$1 config=$2 workdir=$3
shift 3
printf -v flags ' %q' --config="$config" --workdir="$workdir" "$@"
compiled=""
if [ -n "${FUNDUSGAN_JAX_COMPILED:-}" ]; then
  printf -v compiled 'export FUNDUSGAN_JAX_COMPILED=%q && ' "$FUNDUSGAN_JAX_COMPILED"
fi
repository=${REPOSITORY:-fundusgan_jax} # below the home folder there
pid_file=.fundusgan_jax.pid
on_host() { # on_host WORKER COMMAND
  gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker="$1" --command="$2"
}
stopped=""
# shellcheck disable=SC2317,SC2329 # the trap calls it
stop() {
  stopped=yes
  # One process that hears SIGTERM stops all. ssh passes no signals on, so it is sent there. Until the trainer runs, the
  # file is an earlier run's, whose number may be another process's by now.
  on_host 0 "pid=\$(cat $pid_file) && grep -q fundusgan_jax /proc/\$pid/cmdline && kill -TERM \$pid" ||
    echo "no trainer on host 0 to stop, or no way there; once it runs, send the signal again" >&2
}
trap stop TERM INT HUP
# exec keeps the number in the file: it is the trainer's.
on_host all "echo \$\$ > $pid_file; cd $(printf %q "$repository") && . .venv/bin/activate && ${compiled}exec python -m fundusgan_jax.main$flags" &
session=$!
code=0
wait "$session" || code=$?
while [ -n "$stopped" ]; do # the signal ended the wait, and the trainer is saving
  stopped="" code=0
  wait "$session" || code=$?
done
exit "$code"
