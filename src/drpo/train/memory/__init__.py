"""How much memory a run needs, estimated before anything is loaded."""
