"""vLLM in processes of its own, one per GPU or tensor-parallel group."""
