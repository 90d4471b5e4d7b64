"""Source set → the target model's own words: strategies, quality control, control arms, the dataset and its card."""
