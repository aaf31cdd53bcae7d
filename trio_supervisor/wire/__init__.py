"""Protocol 1: JSON lines, calls, answers and limits. Bytes in, events out; no I/O.

`framing` splits lines, `json_line` encodes and decodes them, `session` tracks calls and
answers. These import only a JSON library, so that a short command can use the protocol
within milliseconds. `operation` declares typed operations; `messages`,
`controller_messages` and `worker_messages` are those that the supervisor, the
controller and a worker answer; `codec` converts them.
"""
