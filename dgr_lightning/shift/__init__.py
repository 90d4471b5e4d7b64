"""How far a set, or a tuned model, lies from the target model: NLL, embedding similarity, KL divergence."""
