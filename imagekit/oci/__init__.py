"""The documents of the OCI image specification as values.

`digest` names bytes, `descriptor` points at them, `platform` and `reference` are the two small
languages of the field, `document` keeps the raw bytes of a JSON document beside its parsed form,
and `config` and `manifest` are the documents themselves. Everything here is pure: no file, socket
or clock.
"""
