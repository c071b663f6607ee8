"""What a training costs in time and memory: ``python -m benchmarks.step_time``, and so on; results in benchmarks/results/."""
