"""Many runs: grids over finished runs, the frontier over learning rates, the table of strategies."""
