"""What the benchmarks share: drivers, timing, tables, networks."""
