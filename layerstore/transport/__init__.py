"""Images to and from registries that speak the OCI distribution protocol; knows the store, no command line.

`connect` finds out how a registry is spoken to; `registry` is its protocol, `download` and `upload` move one
blob each, `client` is the one place requests go through: authentication, redirects, what may be sent again.
"""
