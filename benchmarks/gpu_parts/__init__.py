"""The parts of `gpu_proof.py`, a file each: generators of lines, run one by one in processes of their own (`worker`)."""
