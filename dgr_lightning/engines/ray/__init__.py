"""vLLM on the nodes of a Ray cluster, through Ray Data."""
