"""Programs that use the library and are not part of it: ``python -m examples.NAME``, from the root of a clone."""
