"""Images to and from registries that speak the OCI distribution protocol; knows the store, no command line.

`registry` is the protocol, `download` and `upload` move one blob each, and all requests go through `client`:
authentication, redirects, repeated attempts.
"""
