"""The sections of the report, in the order of the page: a module each, with a function `section`."""
