"""What Kintsugi knows about each database engine, as data and pure functions: one folder per engine.

Queries and commands are composed here and run by `shell`; nothing in here connects to anything.
"""
