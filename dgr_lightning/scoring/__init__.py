"""Verdicts on outputs: right or wrong by a grader against a gold answer, refused or not by a judge."""
