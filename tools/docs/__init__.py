"""The generated parts of the documentation: :mod:`tools.docs.pages` is the table of them."""
