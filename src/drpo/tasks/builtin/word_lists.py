"""What the word problems are made of: names, things, times, and what happens."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of ``text``."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of ``text``, which stand on lines of their own or between bars."""
    return tuple(text.strip().replace("\n", "|").split("|"))


SHE = words("""
Ada Agnes Alma Amara Anna Bella Carmen Clara Daisy Elena Emma Esther Fatima Flora Freya Grace Hana Helen Ingrid Iris
Jane Julia Kira Laila Leah Lina Lucy Mabel Maria Maya Mei Mila Mira Molly Nadia Nina Nora Olga Olive Paula Petra Priya
Rita Rosa Ruby Ruth Sana Sofia Stella Tara Tessa Uma Vera Wanda Yara Zoe
""")
HE = words("""
Adam Alan Amir Arthur Ben Boris Carl Cyrus Daniel David Dmitri Edgar Eli Emil Felix Finn Frank George Hans Hugo Ian
Igor Ivan Jack Jonas Juan Karim Kenji Leo Liam Luca Marco Martin Max Milo Musa Nils Noah Omar Oscar Otto Pablo Paul
Peter Ravi Robin Samuel Simon Stefan Tariq Theo Thomas Tom Victor Walter Yusuf
""")
THINGS = words("""
acorns apples badges balloons bananas baskets beads bells blankets bolts books bottles bowls boxes bricks brushes
buckets buttons cakes candles cards carrots chairs cherries chestnuts clocks coins combs cookies corks crayons cups
dice dolls eggs envelopes feathers figs flags flowers forks hammers hats hooks jars kettles keys kites knives labels
ladders lamps leaves lemons letters magnets maps marbles masks medals melons mirrors mugs nails needles notebooks nuts
onions oranges paintings pancakes parcels peaches pears pebbles pencils photos pillows pins plates plums postcards
posters potatoes puzzles ribbons rings ropes sandwiches scarves seeds shells shirts socks spoons stamps stars
stickers stones straws tickets tiles toys turnips umbrellas walnuts whistles
""")
TIMES = phrases("""
Then|Later|Next|After that|Soon after|In the evening|The next day|On Monday|On Friday|After lunch|Before supper
At noon|A week later|That night|In the morning|On the way home|At the market
""")
GAINS = phrases("""
buys|finds|gets|receives|picks up|wins|collects|is given|borrows|brings home|earns|makes
""")
LOSSES = phrases("""
gives away|sells|loses|drops|lends out|throws away|hands over|leaves behind|trades away|breaks|donates|uses up
""")
QUESTIONS = phrases("""
How many {things} does {name} have now?|How many {things} are there in the end?|How many {things} does {pronoun} have?
With how many {things} does {name} end up?|How many {things} are left?|Count the {things} that {name} has now.
""")
