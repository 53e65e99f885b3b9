"""Fuzzing: mutated inputs must give a result or a one-line error, in bounded time and memory.

mutator.py      changes the bytes of files
seeds.py        valid inputs, drawn and written in code
targets.py      the table of what is fuzzed: readers and their seeds
runner.py       runs inputs in worker processes with limits, and classifies the outcomes
"""
