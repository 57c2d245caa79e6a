"""Many ways to say the same: words and phrases of the worked solutions, the usual ones first.

They are drawn with Zipf's weights, so that a few are common and most are rare: a model that learned them samples from
a long tail.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence

from drpo.tasks.builtin.word_lists import phrases, words

#: The k-th choice (from 0) has weight 1 / (k + FLATNESS).
FLATNESS = 3.0

OPENERS = phrases("""
Let us see|Well|So|Let me think|All right|Step by step|To begin with|Here is how it goes|One thing at a time|Now then
Good question|Let me count|First things first|Going through it|Let us work it out|Reading it again|Simple enough
This needs some care|Starting from the beginning|Thinking it over|Let us keep track|In short|As far as I can see
We go line by line|Slowly now|Here we go|Picture it|Imagine the scene|Let me follow the story|A small sum, then
Counting along|Pen and paper ready|No need to hurry|That is easily told|Nothing hard about it|Time to reckon
Take it from the top|Let us follow along|What happens here|Looking closely|Quietly counting|By the look of it
Let us not rush|I would say|It goes like this|My reckoning|Here is my count|Fair enough|Let me write it down|Look
Bit by bit|Once more from the start|A tale of plus and minus|Let us tally it|Keep an eye on the number|Off we go
Easy does it|In plain words|Truth be told|Let me recount the story
""")

CONNECTIVES = phrases("""
Then|Next|After that|Now|Later|And then|Soon|So|Afterwards|From there|Following that|Thereupon|In turn|Going on
Subsequently|Presently|Shortly after|At that point|Further on|Moreover|Besides|Meanwhile|Once done|Hence|Eventually
By and by|In the meantime|Thereafter|Continuing|With that settled|Just then|Before long|A little later|On we go
Right after|Anyway|As it happens|In due course|Further along|Besides that|Still later|Thus|Again|Mind you
Without delay|As told|Accordingly|Later still|Upon that|As the story has it
""")

ADVERBS = words("""
happily quickly gladly quietly kindly proudly simply suddenly calmly carefully eagerly slowly wisely cheerfully clearly
really finally certainly bravely gently politely promptly secretly boldly casually cleverly daringly deftly dutifully
easily fondly freely generously gracefully gratefully hastily honestly hopefully humbly idly innocently jokingly
joyfully keenly lazily lightly lovingly loyally luckily merrily modestly mysteriously neatly nervously nobly oddly
openly patiently peacefully playfully pleasantly plainly readily reluctantly rightly sadly safely sensibly seriously
shyly silently skilfully sleepily smoothly softly solemnly speedily steadily sternly stubbornly surely sweetly swiftly
tenderly thankfully thoughtfully tidily tirelessly truly unexpectedly warmly wearily willingly wistfully absently
abruptly adroitly amiably anxiously ardently awkwardly bashfully blindly briskly busily candidly cautiously coolly
courteously curiously decently delightedly discreetly doubtfully dreamily earnestly elegantly evenly faithfully
famously fearlessly fervently firmly frankly frugally gaily gallantly gravely grudgingly handily heartily helpfully
heroically instantly intently jauntily judiciously justly languidly lavishly leisurely lively loudly madly meekly
nimbly obediently painstakingly partly pensively perfectly placidly positively precisely privately prudently punctually
quaintly queerly randomly rashly regally restlessly robustly routinely royally savagely scarcely seemingly serenely
sharply sheepishly shrewdly soberly soundly spryly stealthily stoutly strangely tactfully tamely tartly timidly
triumphantly vaguely valiantly vigorously visibly vividly wryly zealously zestfully
""")

ADJECTIVES = words("""
nice small little lovely old pretty new fine big good plain fresh bright shiny large round red blue green white tidy
neat clean heavy light simple tiny yellow brown grey black golden silver wooden smooth rough soft hard cheap dear
precious rare common curious odd strange funny handsome elegant splendid ordinary sturdy fragile dusty polished painted
striped spotted speckled crimson scarlet purple violet orange pink ivory amber emerald olive turquoise copper bronze
pale dark glossy dull gleaming glittering sparkling dazzling modest humble fancy costly valuable worthless useful
useless ancient antique modern foreign local borrowed treasured beloved favourite charming delicate exquisite graceful
perfect flawless faded worn crooked bent broken chipped cracked curved flat thick thin narrow wide long short slender
bulky massive enormous gigantic miniature mighty dainty compact crumpled wrinkled folded knotted tangled twisted woven
carved engraved embroidered decorated gilded lacquered varnished waxed scented fragrant damp dry wet warm cool cold
frosty sticky slippery silky velvety woolly feathery spongy brittle crisp tender juicy ripe sweet sour bitter spicy
salty tasty delicious wholesome peculiar remarkable memorable mysterious magical enchanted lucky unlucky cheerful merry
sad lonely quaint rustic homely royal noble festive solemn sacred secret hidden forgotten missing spare extra leftover
assorted various matching identical similar distinct genuine authentic sham marvellous magnificent wondrous admirable
respectable decent tolerable passable shabby ragged tattered battered weathered rusty mossy muddy sandy chalky
""")

GAINED = phrases("""
gets|takes in|adds|gains|picks up|receives|comes by|collects|brings in|puts aside|gathers|acquires|obtains|welcomes
finds|stores|fetches|procures|secures|accepts|pockets|keeps|hoards|saves|earns|wins|rakes in|lays in|scoops up
""")

LOST = phrases("""
gives up|loses|parts with|sheds|gives away|lets go of|is rid of|spends|hands on|misses|surrenders|forgoes|drops
leaves|yields|dispenses with|passes on|discards|abandons|sacrifices|waves goodbye to|casts off|relinquishes
forfeits|does without
""")

MAKES = phrases("""
makes|is|gives|equals|comes to|amounts to|yields|adds up to|brings us to|leads to|results in|means|produces|totals
must be|works out at|gets us to|takes us to|becomes
""")

LEAVES = phrases("""
leaves|is|gives|equals|makes|comes to|brings us to|leads to|results in|means|yields|takes us down to|shrinks to|must be
works out at|falls to|drops to|gets us to|becomes
""")

CLOSERS = phrases("""
So the answer is|That makes|Hence|The answer|In all|Therefore|Thus|Altogether|The result|All in all|We end with|Finally
Done|There we have it|In the end|My answer|To sum up|Our result|The final count|The tally|At last|Everything counted
The outcome|When all is said|Result
""")

DOUBTS = phrases("""
Let me check|Wait|Is that right|Checking|Once more|Hold on|To be sure|Hmm|Just to verify|Let me redo that|Really
Double check|Look again|Careful|One moment|Is it|Let me make sure|Verify|Counting again|Stop
""")


def usual(choices: Sequence[str], rng: random.Random) -> str:
    """One of ``choices``, the first ones most often."""
    return rng.choices(choices, cum_weights=_cumulative(len(choices)))[0]


@functools.cache
def _cumulative(count: int) -> list[float]:
    return list(itertools.accumulate(1 / (place + FLATNESS) for place in range(count)))
