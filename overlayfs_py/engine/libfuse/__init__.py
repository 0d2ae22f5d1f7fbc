"""The portable engine: pyfuse3 over libfuse, one trio task for each request."""
