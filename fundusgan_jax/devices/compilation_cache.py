"""Keeps compiled programs between runs, so that a run that resumes does not compile what the last one did."""

from __future__ import annotations

import os
from pathlib import Path

import jax

FOLDER_VARIABLE = "FUNDUSGAN_JAX_COMPILED"
# JAX's own name for the folder; JAX reads it itself.
JAX_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
OFF = "off"


def compiled_folder() -> Path | None:
    """Where compiled programs are kept; None where they are not.

    $FUNDUSGAN_JAX_COMPILED ('off' keeps none), else $JAX_COMPILATION_CACHE_DIR, else on accelerators
    ~/.cache/fundusgan_jax/compiled. On CPUs programs are kept where one of the variables asks for it alone: on some
    processors XLA warns of each kept program that it may not fit the machine that compiled it (jax issue 38445).
    """
    chosen = os.environ.get(FOLDER_VARIABLE, "")
    if chosen == OFF:
        return None
    if chosen or os.environ.get(JAX_VARIABLE):
        return Path(chosen or os.environ[JAX_VARIABLE])
    if jax.default_backend() == "cpu":
        return None
    return Path.home() / ".cache" / "fundusgan_jax" / "compiled"


def keeping_hint() -> str:
    """How to keep compiled programs, '' where they are kept."""
    return "" if compiled_folder() else f"{FOLDER_VARIABLE}=FOLDER keeps compiled programs for the next start"


def keep_compiled_programs() -> None:
    """Makes JAX look in `compiled_folder` before it compiles, and keep there what took over a second.

    Starts JAX's backend: to be called after what must come before that. A folder that cannot be written costs a
    warning of JAX's and no run.
    """
    folder = compiled_folder()
    if folder is None:
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        jax.config.update("jax_compilation_cache_dir", str(folder))
