"""Several processes as one: launching ranks, several nodes, devices, sharded and split models."""
