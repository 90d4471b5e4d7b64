"""The style of a tokenizer, and what models write, parsed into trace and answer."""

from dgr_lightning.models.thinking import Parsed


def test_styles_are_read_off_the_tokenizer(chats, micro):
    assert {name: chat.style for name, chat in chats.items()} == {
        "r1-distill-qwen": "think",
        "r1-distill-llama": "think",
        "qwen3": "think",
        "qwen2.5": "s1",
    }
    assert micro.chat.style == "think"


def test_unfinished_and_malformed_outputs(chats, micro):
    r1, qwen3, s1 = chats["r1-distill-qwen"], chats["qwen3"], chats["qwen2.5"]
    assert r1.parse("still thinking") == Parsed("still thinking", None)
    assert r1.parse("hm\n</think>\n\n") == Parsed("hm", "")
    assert r1.parse("\n</think>\n\nNo.") == Parsed("", "No.")
    assert r1.parse("hm</think>No.</think>Yes.") == Parsed("hm", "No.</think>Yes.")
    assert qwen3.parse("<think>\nstill thinking") == Parsed("still thinking", None)
    assert qwen3.parse("straight to the answer") == Parsed(None, None)
    assert qwen3.parse(" straight to the answer\n", finished=True) == Parsed(None, "straight to the answer")
    assert s1.parse("No.", finished=True) == Parsed(None, "No.")
    assert r1.parse("still thinking", finished=True) == Parsed("still thinking", None), "its template opened a thought"
    for opened in ("<think>\nhm", "No. <think> hm"):
        assert qwen3.parse(opened, finished=True).answer is None
    assert qwen3.parse("hm\n</think>\n\nNo.") == Parsed("hm", "No.")
    assert s1.parse("<|im_start|>think\nhm\n<|im_start|>answer\nNo.") == Parsed("hm", "No.")
    assert s1.parse("<|im_start|>think\nhm") == Parsed("hm", None)
    assert micro.chat.parse("first mix </think> I cannot help with that .") == Parsed("first mix", "I cannot help with that .")
    # A second opening is part of the trace, where a check can see it.
    assert r1.has_marks(r1.parse("<think>\nhm\n</think>\n\nNo.").trace or "")
    assert [chat.parse(" No.\n", thinking=False) for chat in (r1, qwen3, s1)] == [Parsed("", "No.")] * 3
