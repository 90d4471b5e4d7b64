"""The order of the stages, what each of them does, and the directory that a run owns."""
