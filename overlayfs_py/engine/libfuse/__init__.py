"""The portable engine: pyfuse3, which is libfuse, with one trio task a request."""
