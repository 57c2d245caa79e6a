"""The page of `drpo compare`."""
