"""The numbers of monitoring, measured: python -m benchmarks.monitoring."""
