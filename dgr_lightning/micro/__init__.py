"""The miniature: a reasoning model of 0.8M parameters, and a small closed language, on which every claim can be measured.

It is a model organism. It shows that the pipeline works and that the effect exists in the small; it says nothing about the
size of the effect on a model of 7B parameters. Past `build` nothing knows about it: it is a `Qwen3ForCausalLM` with an
ordinary tokenizer and chat template in an ordinary folder.
"""
