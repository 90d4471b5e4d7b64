"""Refinement: the target model puts somebody else's traces and answers into its own words."""
