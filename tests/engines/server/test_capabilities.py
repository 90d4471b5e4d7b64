"""What a server supports is found out at the start, from a stand-in with every bad habit; the indispensable is insisted on."""

import pytest

from dgr_lightning.engines.engine import STOP, Completion
from dgr_lightning.errors import UserError
from tests.helpers.stand_in import SAMPLING, client_threads, encode, expected, request, texts


def test_one_of_several_models_has_to_be_named(stand_in, connect):
    stand_in.models.append({"id": "model-b"})
    with pytest.raises(UserError, match=r"2 models; write engine.served_model=model-a or engine.served_model=model-b"):
        connect(stand_in)
    with pytest.raises(UserError, match=r"does not serve model-c; write engine.served_model=model-a"):
        connect(stand_in, served_model="model-c")
    engine = connect(stand_in, served_model="model-b")
    list(engine.generate([request("a" * 500)], SAMPLING))
    assert stand_in.bodies[0]["model"] == "model-b"
    stand_in.models.clear()
    with pytest.raises(UserError, match="0 models"):
        connect(stand_in)


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        ({"token_ids": False, "keeps_controls": False}, "does not return <think>"),
        ({"token_ids": False, "knows_bias": False}, "does not return <think>"),
        ({"shift": 1, "token_ids": False}, "another tokenizer"),
        ({"takes_ids": False}, "does not take a prompt of token ids.*must be a string"),
        ({"extra_prompt_tokens": 1}, "it changes prompts"),
    ],
    ids=str,
)
def test_a_server_that_harms_prompts_or_marks_is_refused(stand_in, connect, habit, message):
    before = client_threads()
    vars(stand_in).update(habit)
    with pytest.raises(UserError, match=message):
        connect(stand_in)
    assert client_threads() <= before


def test_token_ids_prove_themselves(stand_in, connect):
    stand_in.keeps_controls, stand_in.knows_bias = False, False
    assert list(connect(stand_in).generate([request("a")], SAMPLING)) == [expected("a")]


def test_text_alone_is_enough_where_control_tokens_show_in_it(stand_in, connect):
    stand_in.token_ids = False
    completions = {one.key: one for one in connect(stand_in).generate(map(request, texts(9)), SAMPLING)}
    assert completions == {f"key of {text}": expected(text) for text in texts(9)}


def test_a_server_that_knows_openais_fields_alone_is_cut_by_the_engine(stand_in, connect):
    stand_in.takes_extras = False
    engine = connect(stand_in)
    output = "ab</think>c<over>d"
    stand_in.answer = lambda body: (200, {}, {"choices": [{"text": output, "finish_reason": "length"}]})
    assert list(engine.generate([request("x")], SAMPLING)) == [
        Completion("key of x", tuple(encode("ab</think>c")), "ab</think>c", STOP)
    ]
    assert not stand_in.bodies[0].keys() & {"stop_token_ids", "top_k", "ignore_eos", "return_token_ids"}
