"""The shape of finished images: manifests, indexes and outputs.

`image` and `index` turn configs and layers into documents and are pure; `spec` reads what `-o`
asks for, and `outputs` writes a result there.
"""
