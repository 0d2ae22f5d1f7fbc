"""The store on disk: image layout, blobs, unpacked layers; knows no command line and no mounts."""
