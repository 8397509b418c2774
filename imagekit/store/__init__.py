"""Content-addressed storage: the user's store, image layouts, archives, and the walk between them.

`roles` has the protocols that all of them speak, and a registry too; `local` is the store that
builds share, `layout` and `archive` are the forms in which images leave and enter, and `copy`
moves an image from any source to any target. Import from the modules: a build that is all cached
needs few of them.
"""
