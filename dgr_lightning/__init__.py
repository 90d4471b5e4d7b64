"""Safety tuning of reasoning models on data that the target model has refined itself (DGR, arXiv 2602.02136)."""
