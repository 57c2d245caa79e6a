"""Three small token logs of real runs, for docs/tutorial-inspect.md, and what made them."""

from pathlib import Path

FOLDER = Path(__file__).parent
#: In the order of the tutorial; each is a folder with tokens.jsonl.gz.
NAMES = ("healthy", "wrong-temperature", "collapsed")
