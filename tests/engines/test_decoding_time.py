"""The estimate of generation: bytes over bandwidth, until the products take longer; engines are full until nothing waits."""

from dataclasses import replace

import pytest

from dgr_lightning.engines.decoding_time import (
    PRODUCT_SHARE,
    READ_SHARE,
    STEP_SECONDS,
    DecodedModel,
    EngineMachine,
    Generation,
    generation_seconds,
    prefill_seconds,
    sequences_at_once,
    step_seconds,
)

MODEL = DecodedModel(num_weights=7_000_000_000, weight_bytes=14e9, token_bytes=57_344)  # 28 layers, 4 heads of 128
H100 = EngineMachine(1, 1, 989e12, 3.35e12, 0.9 * 80 * 2**30, 256)


def test_a_step_reads_all_weights_and_what_came_before() -> None:
    bandwidth = READ_SHARE * 3.35e12
    assert step_seconds(MODEL, H100, 1, 0) == pytest.approx(14e9 / bandwidth)
    assert step_seconds(MODEL, H100, 64, 2000) == pytest.approx((14e9 + 64 * 2000 * 57_344) / bandwidth)
    large = replace(MODEL, weight_bytes=28e9)
    assert step_seconds(large, replace(H100, devices_each=2), 1, 0) == pytest.approx(28e9 / bandwidth / 2)


def test_no_step_is_shorter_than_the_engines_own_or_than_its_products() -> None:
    assert step_seconds(DecodedModel(1000, 2000, 1), H100, 1, 10) == STEP_SECONDS
    assert step_seconds(MODEL, H100, 10_000, 0) == pytest.approx(2 * 7e9 * 10_000 / (PRODUCT_SHARE * 989e12))


def test_memory_beside_the_weights_bounds_the_sequences() -> None:
    room = 0.9 * 80 * 2**30 - 3 * 2**30 - 14e9
    assert sequences_at_once(MODEL, H100, 8000) == int(room // (8000 * 57_344)) == 130
    assert sequences_at_once(MODEL, H100, 100) == 256, "no more than the engine takes"
    assert sequences_at_once(replace(MODEL, weight_bytes=80e9), H100, 8000) == 1, "one at least"


def test_engines_share_a_stream_and_the_longest_output_goes_on_alone() -> None:
    wanted = Generation(num_sequences=800, prompt_tokens=800 * 100, output_tokens=800 * 1000, longest=1000)
    alone = generation_seconds(MODEL, H100, wanted)
    eight = generation_seconds(MODEL, replace(H100, num_engines=8), wanted)
    assert 800 / 256 < alone / (1000 * step_seconds(MODEL, H100, 256, 600)) < 800 / 256 + 0.5, "full engines, then prompts"
    assert eight < alone / 2
    tail = generation_seconds(MODEL, replace(H100, num_engines=8), replace(wanted, longest=8000)) - eight
    assert tail == pytest.approx(7000 * step_seconds(MODEL, H100, 1, 4100), rel=0.01)
    assert generation_seconds(MODEL, H100, Generation()) == 0


def test_prompts_are_products_over_all_devices() -> None:
    machine = replace(H100, num_engines=4, devices_each=2)
    assert prefill_seconds(MODEL, machine, 1e6) == pytest.approx(2 * 7e9 * 1e6 / (8 * PRODUCT_SHARE * 989e12))


def test_two_streams_add_up() -> None:
    assert Generation(2, 20, 200, 150) + Generation(1, 5, 80, 80) == Generation(3, 25, 280, 150)
