"""A stand-in for the chat interface of a server, for judges behind an endpoint."""

from collections.abc import Callable
from typing import Any

from tests.helpers.stand_in import StandIn

Reply = str | tuple[str, str] | tuple[int, dict[str, str], Any]


def chat_server(say: Callable[[str], Reply | None]) -> StandIn:
    """Starts a server that answers the last turn by a function of it: text, (text, finish reason), (status, headers, body)."""

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if body["model"] != "judge-model":
            return 404, {}, {"error": {"message": "no such model"}}
        said = say(body["messages"][-1]["content"])
        if isinstance(said, tuple) and len(said) == 3:
            return said
        text, reason = said if isinstance(said, tuple) else (said, "stop")
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
        return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": 1}}

    stand_in = StandIn().start()
    stand_in.answer = answer
    return stand_in
