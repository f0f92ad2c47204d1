"""The fault lab: a real PostgreSQL under several workloads, real faults, real remedies, recorded as production sees it.

Only what measures lives here; it may use `kintsugi.engines` and `kintsugi.shell` (production's own signals and actions)
and `kintsugi_dev` (servers on a developer's machine). Nothing else may import it, and the wheel leaves it out.
"""
