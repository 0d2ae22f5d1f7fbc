"""One function for each verb: `layerstore` exports them, and the command line calls them.

A verb opens the store, parses words and calls the rooms below. No verb imports another: what two verbs share
is below them.
"""
