"""What decides whether an answer refuses, a judge a file: `judge.name` names it."""
