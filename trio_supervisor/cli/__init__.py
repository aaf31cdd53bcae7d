"""The command line.

`cli.verbs` is the table of verbs; a verb's handler is in the module that its row names,
which is imported only when the verb is used. argparse parses the arguments, and short
verbs speak the protocol over a blocking socket: importing click and trio would take
several times as long as a whole ``ping``.
"""
