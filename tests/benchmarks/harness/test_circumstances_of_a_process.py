"""What --proceed passes over: another process names the device that this one would name."""

from benchmarks.harness.circumstances import circumstances, of_a_process, same_place


def test_a_process_of_its_own_names_the_device():
    of_a_process.cache_clear()
    assert same_place(circumstances(), of_a_process())
