#!/usr/bin/env bash
# What XLA should know on NVIDIA's cards; sourced by launch/local.sh and launch/slurm.sbatch. What is set already stays.
if compgen -G '/dev/nvidia[0-9]*' > /dev/null; then
  # JAX's own default leaves a quarter of the memory.
  export XLA_CLIENT_MEM_FRACTION="${XLA_CLIENT_MEM_FRACTION:-0.92}"
  # Exchanges between cards run beside the computation.
  case "${XLA_FLAGS:-}" in
    *xla_gpu_enable_latency_hiding_scheduler*) ;;
    *) export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_latency_hiding_scheduler=true" ;;
  esac
fi
