"""Sources of image bytes: files, archives, HDF5, columns of a table, or a custom class."""
