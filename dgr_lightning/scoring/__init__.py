"""What an output counts as: right or wrong against a gold answer, refused or not by a judge."""
