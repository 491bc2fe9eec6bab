"""Messages that a chat template is tried on, to see what it writes of tools, answers and their ends."""

from typing import Any

from loracook.data.read.rows import Message

QUESTION: Message = {"role": "user", "content": "?"}
CALL = {
    "id": "call00000",
    "type": "function",
    "function": {"name": "tool_name", "arguments": {"tool_key": "tool_value"}},
}
TOOL_CALL: Message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL_CALLS: Message = {**TOOL_CALL, "tool_calls": [CALL, CALL]}
TOOL_RESULT: Message = {
    "role": "tool",
    "name": "tool_name",
    "tool_call_id": CALL["id"],
    "content": "tool_result",
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "tool_name",
        "description": "tool_use",
        "parameters": {"type": "object", "properties": {}},
    },
}
TOOL_PARTS = ("tool_name", "tool_key", "tool_value", "tool_result")
ANSWER: Message = {"role": "assistant", "content": "\u2603"}
