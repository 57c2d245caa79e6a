"""`drpo doctor`: is everything here that a run needs, and does it do what it seems to?"""
