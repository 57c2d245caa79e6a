"""HTML: escaping, the style sheet and the text of numbers."""
