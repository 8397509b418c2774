"""From a plan to layers: each step is run, or taken from the cache.

`engine` decides what has to run and runs it side by side; `handlers` has one function an
operation; `cache` finds results by key; `layers` keeps what is known of layers (blobs, indexes,
trees) and writes new ones; `contexts` are the caller's folders; `snapshots` are layers laid out
for RUN. Nothing here relies on being in the process that made the plan.
"""
