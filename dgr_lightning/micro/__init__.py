"""The miniature: a reasoning model of 0.6M parameters with a small closed language, on which every claim can be measured.

It is a model organism. It shows that the pipeline works and that the effect exists at small scale; it says nothing about the
size of the effect on a 7B model. Once built it is a `Qwen3ForCausalLM` with a tokenizer and chat template in an ordinary
Hugging Face folder, and no other code treats it specially.
"""
