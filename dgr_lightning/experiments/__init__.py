"""Many runs: grids started and read back, and the findings over them: the frontier, the table of strategies."""
