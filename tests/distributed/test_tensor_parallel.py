"""Which models can be split over devices, and which cannot; what comes of it is in test_ranks."""

import pytest

from dgr_lightning.distributed import tensor_parallel
from dgr_lightning.errors import UserError
from tests.helpers.trainings import small_model


@pytest.mark.parametrize("family", ["Qwen3", "Qwen2", "Llama", "Mistral", "GPTNeoX"])
def test_families_with_a_plan_can_be_split(family: str) -> None:
    model = small_model(family)
    tensor_parallel.check_split(model, 2)


@pytest.mark.parametrize(
    ("family", "changes", "ways", "message"),
    [
        ("Qwen2", {}, 4, "Qwen2ForCausalLM has 2 key and value heads, which 4 devices cannot share evenly"),
        ("Qwen2", {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 36}, 2, "has 3 attention heads"),
        ("Llama", {"intermediate_size": 47}, 2, r"has 47 values of mlp\.gate_proj"),
        ("Phi3", {}, 2, "its plan asks for colwise_gather_output, rowwise_split_input.*fsdp shards any model"),
        ("Apertus", {}, 2, r"its plan does not say what becomes of mlp\.act_fn\.alpha_p"),
        ("Cohere", {"use_qk_norm": True}, 2, r"its plan does not say what becomes of self_attn\.q_norm\.weight"),
        ("Qwen2Moe", {"decoder_sparse_step": 1}, 2, "its plan"),
        ("OPT", {"word_embed_proj_dim": 32}, 2, "OPTForCausalLM cannot be split, it has no plan"),
    ],
)
def test_what_cannot_be_split_is_said(family: str, changes: dict, ways: int, message: str) -> None:
    model = small_model(family, **changes)
    with pytest.raises(UserError, match=rf"^trainer\.tensor_parallel={ways}: .*{message}"):
        tensor_parallel.check_split(model, ways)
