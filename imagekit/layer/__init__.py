"""Layers and the trees they make, in memory: no file, socket or clock.

`tree` is what a root file system is, `changes` what a layer does to it. `tar` reads and writes
the bytes of layers (`tar_reader`, `tar_writer`, `headers`), `compress` and `decompress` turn them
into blobs and back, `index` is what is kept of a layer so that it need not be read again.
`copying` has the rules of COPY, ADD and WORKDIR: `selection` says what a source names, `owner`
and `mode` are --chown and --chmod, `extract` is ADD of an archive. `content_digest` gives what
cache keys hold of all this.
"""
