"""What grading maths is made of: finding a final answer, reading it, and comparing it with the gold one."""
