"""Folders on disk as trees and layers, and back.

`paths` opens and makes things beneath a root and never outside it. `context` reads build contexts.
`snapshot` lays layers out in folders and finds out what a RUN step changed there. Import from the
modules: a build whose steps are all cached needs `context` alone.
"""
