"""Tasks that need nothing installed, one file each."""
