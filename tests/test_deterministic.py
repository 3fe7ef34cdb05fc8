"""config.deterministic: flags are set before the backend starts, and not against the user's own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from fundusgan_jax.deterministic import GPU_FLAGS, require_determinism
from fundusgan_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_sets_the_flags_before_the_backend_starts(tmp_path):
    """XLA ends a process with a flag that it does not know: it knows these."""
    code = (
        "import os, sys\n"
        "from unittest import mock\n"
        "from fundusgan_jax import main, train\n"
        "def look(config, workdir, command):\n"
        "    import jax\n"
        "    print(jax.device_count(), os.environ['XLA_FLAGS'])\n"
        "with mock.patch.object(train, 'train', look):\n"
        "    main.main(sys.argv[1:])\n"
    )
    words = ["--config=configs/demo.py", f"--workdir={tmp_path}", "--config.deterministic=True"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    count, *flags = answer.stdout.split()
    assert count == "3" and set(GPU_FLAGS) < set(flags)


def test_too_late_or_against_the_users_flags_is_said(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    jax.devices()
    with pytest.raises(UserError, match="comes too late.*xla_gpu_deterministic_ops=true"):
        require_determinism()
    monkeypatch.setattr("fundusgan_jax.deterministic.xla_bridge.backends_are_initialized", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=4")
    with pytest.raises(UserError, match="XLA_FLAGS has --xla_gpu_autotune_level=4.*take one of them away"):
        require_determinism()
    monkeypatch.setenv("XLA_FLAGS", " ".join(GPU_FLAGS))
    require_determinism()
    assert os.environ["XLA_FLAGS"] == " ".join(GPU_FLAGS)
