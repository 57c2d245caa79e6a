"""Reading problems from files: formats, compression, and the layouts of a record."""
