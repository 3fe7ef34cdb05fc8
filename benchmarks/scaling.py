"""How a training step scales over devices: python -m benchmarks.scaling --devices=1,2,4,8."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence

from benchmarks.harness import driver
from benchmarks.harness.circumstances import Record, of_a_process
from benchmarks.harness.timing import Measurement, Timer
from benchmarks.harness.training import Training
from benchmarks.train_step import DTYPES, add_training_flags, choice_of, shared_settings

DESCRIPTION = """Times the training step (averaged over its lazy schedule) on 1 to 8 devices of this process. 'weak': --batch
photographs on every device; 'strong': --batch photographs of all together. Efficiency: img/s over the smallest number of
devices' img/s times as many. On a processor the devices are simulated and share its cores: there the table shows what
dividing the work costs, and an efficiency of 1 / devices is no loss."""

MODES = ("weak", "strong")


def _add_flags(flags: argparse.ArgumentParser) -> None:
    add_training_flags(flags)
    flags.set_defaults(config=["configs/stylegan2.py"])
    flags.add_argument(
        "--devices",
        type=driver.numbers,
        help="default: 1,2,4,8 and so on as far as there are; 1 to 8 on a processor",
    )
    flags.add_argument("--mode", type=driver.words, default=list(MODES), help=f"default: {','.join(MODES)}")


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("mode", chosen.mode, MODES)
    driver.check_choices("dtype", chosen.dtype, DTYPES)
    devices = sorted(chosen.devices or powers_of_two(of_a_process().get("devices", {})))
    every = itertools.product(
        chosen.config, chosen.resolution, chosen.dtype, chosen.mode, chosen.batch, devices
    )
    return [
        {"config": config, "resolution": resolution, "dtype": dtype, "mode": mode, "batch": batch,
         "devices": devices, **shared_settings(chosen)}
        for config, resolution, dtype, mode, batch, devices in every
    ]  # fmt: skip


def powers_of_two(devices: Record) -> list[int]:
    """1, 2, 4 and so on up to the number of devices; up to 8 simulated ones on a processor."""
    most = 8 if devices.get("platform", "cpu") == "cpu" else int(devices["count"])
    return [2**power for power in range(most.bit_length())]


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    times = setting["devices"] if setting["mode"] == "weak" else 1
    choice = choice_of(chosen, {**setting, "batch": setting["batch"] * times})
    *_, whole = Training(choice).measure(timer, setting)
    yield whole._replace(settings=setting, phases=1)


def add_efficiency(records: list[Record]) -> None:
    """img/s over that of the fewest devices of the same setting, per device."""

    def key(record: Record) -> str:
        return str({name: value for name, value in record["settings"].items() if name != "devices"})

    for record in records:
        alike = [other for other in records if key(other) == key(record) and "error" not in other]
        if "error" in record or not alike:
            continue
        fewest = min(alike, key=lambda other: other["settings"]["devices"])
        times = record["settings"]["devices"] / fewest["settings"]["devices"]
        record["figures"] = {
            **record.get("figures", {}),
            "efficiency": record["img_per_sec"] / fewest["img_per_sec"] / times,
        }


def finish(records: list[Record]) -> None:
    """Adds the efficiencies, and says where they mean little."""
    add_efficiency(records)
    if any(record.get("devices", {}).get("platform") == "cpu" for record in records):
        print("note: simulated devices share the processor's cores; this is no measurement of scaling")


BENCHMARK = driver.Benchmark(
    "scaling", DESCRIPTION, _add_flags, _settings, _measure, overrides=True, finish=finish
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
