"""WASI preview 1 in memory, for any engine: functions over a guest's memory, without a file or a thread.

Engines hand their imports to `preview1.Wasi`; nothing here imports one.
"""
