"""Uploaded adapters: a PEFT directory in an archive → its files, checked without opening a pickle.

Nothing here loads torch, and no path of an archive becomes a path of this machine.
"""
