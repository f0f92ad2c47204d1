"""PostgreSQL: its signals and topology (data), diagnostic queries, and actions. Composes text, connects to nothing.

Who runs what is composed here: `kintsugi.shell.diagnose` the queries, `kintsugi.shell.execute` the plans.
"""
