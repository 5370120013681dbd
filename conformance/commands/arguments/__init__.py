"""The arguments of each command, apart from its work.

Help, completion and an error of usage need no torch, which takes seconds to import: nothing here
imports it.
"""
