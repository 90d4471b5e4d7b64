"""Safety tuning of reasoning models on data that the target model has refined itself (DGR, arXiv 2602.02136).

`ls` of this folder is the table of contents, docs/architecture.md draws the way of the data through it, and `make check` holds
the direction of the imports. `import dgr_lightning` imports nothing else and changes nothing.
"""
