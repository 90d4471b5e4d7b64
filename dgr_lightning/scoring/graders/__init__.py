"""What compares an answer with the gold one, a grader a file: `Task.grader` names it."""
