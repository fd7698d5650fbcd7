"""Where the bytes of images come from: files, archives, HDF5, columns of a table, or a class of the user's own."""
