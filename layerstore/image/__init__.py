"""Images: the view of one in the store, finding it by name, making a new one from another."""
