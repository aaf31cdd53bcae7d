"""Protocol 1: lines of JSON, calls and answers, limits. Bytes in, events out; no I/O.

`framing` cuts lines, `json_line` turns one into an object and back, `session` knows
calls and answers, `messages` and `codec` give them types. The first three load nothing
but a JSON library, so that a short command can speak the protocol within milliseconds.
"""
