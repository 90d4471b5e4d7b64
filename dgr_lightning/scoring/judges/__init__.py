"""Who says whether an answer refuses, a judge a file."""
