"""Graders compare an answer with the gold one; one file each, named by `Task.grader`."""
