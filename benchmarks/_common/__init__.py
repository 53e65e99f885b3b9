"""What the benchmark scripts share, one module a job."""
