"""The shape of a decoder's attention, read off its config."""

from types import SimpleNamespace

from dgr_lightning.models.attention_shape import AttentionShape


def test_what_a_family_leaves_out_follows_from_the_rest():
    plain = SimpleNamespace(num_hidden_layers=3, num_attention_heads=4, hidden_size=64)
    assert AttentionShape.of(plain) == AttentionShape(3, 4, 4, 16)
    grouped = SimpleNamespace(num_hidden_layers=3, num_attention_heads=4, hidden_size=64, num_key_value_heads=2, head_dim=32)
    assert AttentionShape.of(grouped) == AttentionShape(3, 4, 2, 32)


def test_every_layer_caches_keys_and_values_of_each_of_its_heads():
    assert AttentionShape(28, 28, 4, 128).cached_numbers == 2 * 28 * 4 * 128
