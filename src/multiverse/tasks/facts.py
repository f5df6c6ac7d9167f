"""Facts by hand that small questions ask for. Every third entry is held out (`wording.part_of`): add only at the end.

Several right answers are separated by ``/``, the first being the one that solutions give.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    entries = (entry.split(":") for entry in text.replace("\n", " ").split(",") if entry.strip())
    return tuple((left.strip(), right.strip()) for left, right in entries)


OPPOSITES = _pairs("""
hot: cold, big: small/little, fast: slow, high: low, light: dark/heavy, open: closed/shut, early: late, rich: poor, strong:
weak, hard: soft/easy, happy: sad/unhappy, wet: dry, full: empty, young: old, long: short, wide: narrow, thick: thin, loud:
quiet/soft/silent, clean: dirty, near: far, deep: shallow, sweet: sour/bitter, smooth: rough, brave: cowardly/afraid, true:
false, inside: outside, above: below/under, before: after, always: never, win: lose, push: pull, buy: sell, give:
take/receive, arrive: leave/depart, remember: forget, begin: end/finish/stop, love: hate, laugh: cry, day: night, summer:
winter, left: right/wrong, up: down, north: south, east: west, friend: enemy/foe, question: answer, peace: war, success:
failure, wise: foolish/stupid/unwise, cheap: expensive/dear/costly, tall: short, safe: dangerous/unsafe, sharp: blunt/dull,
tight: loose, polite: rude/impolite, simple: complicated/complex/difficult, ancient: modern/new, first: last, top: bottom,
front: back/rear
""")

CAPITALS = _pairs("""
France: Paris, Germany: Berlin, Italy: Rome, Spain: Madrid, Portugal: Lisbon, Greece: Athens, Austria: Vienna, Poland:
Warsaw, Norway: Oslo, Sweden: Stockholm, Finland: Helsinki, Denmark: Copenhagen, Ireland: Dublin, Hungary: Budapest,
Belgium: Brussels, Russia: Moscow, Japan: Tokyo, China: Beijing, India: New Delhi/Delhi, Egypt: Cairo, Kenya: Nairobi, Peru:
Lima, Chile: Santiago, Cuba: Havana, Canada: Ottawa, Australia: Canberra, Thailand: Bangkok, Turkey: Ankara, Iran: Tehran,
Iraq: Baghdad, Argentina: Buenos Aires, Colombia: Bogota, South Korea: Seoul, Vietnam: Hanoi, Indonesia: Jakarta, Nepal:
Kathmandu, Ukraine: Kyiv/Kiev, Romania: Bucharest, Bulgaria: Sofia, Iceland: Reykjavik
""")

PLURALS = _pairs("""
child: children, mouse: mice, foot: feet, tooth: teeth, man: men, woman: women, goose: geese, leaf: leaves, knife: knives,
wolf: wolves, city: cities, baby: babies, box: boxes, bus: buses, dish: dishes, church: churches, tomato: tomatoes, potato:
potatoes, hero: heroes, lady: ladies, half: halves, wife: wives, life: lives, shelf: shelves, ox: oxen, sheep: sheep, fish:
fish/fishes, deer: deer, party: parties, story: stories, glass: glasses, watch: watches, brush: brushes, fox: foxes, berry:
berries, loaf: loaves, thief: thieves, calf: calves, key: keys, toy: toys, country: countries, family: families, kiss:
kisses, peach: peaches, echo: echoes
""")

PASTS = _pairs("""
go: went, see: saw, eat: ate, run: ran, write: wrote, take: took, give: gave, come: came, sing: sang, swim: swam, buy:
bought, think: thought, bring: brought, teach: taught, catch: caught, find: found, make: made, know: knew, grow: grew, fly:
flew, drive: drove, ride: rode, break: broke, speak: spoke, begin: began, drink: drank, fall: fell, feel: felt, keep: kept,
sleep: slept, leave: left, lose: lost, meet: met, pay: paid, sell: sold, send: sent, sit: sat, stand: stood, tell: told,
win: won, choose: chose, draw: drew, forget: forgot, hide: hid, wear: wore
""")

YOUNG = _pairs("""
dog: puppy/pup, cat: kitten, cow: calf, horse: foal/colt/filly, sheep: lamb, pig: piglet, goat: kid, duck: duckling, hen:
chick, bear: cub, lion: cub, deer: fawn, kangaroo: joey, swan: cygnet, goose: gosling, frog: tadpole, owl: owlet, eagle:
eaglet, whale: calf, wolf: pup/cub
""")


RHYMES = tuple(
    _words(line)
    for line in """
cat hat bat mat rat
dog log fog frog hog
tree bee sea knee key
night light kite bite right
house mouse blouse
ring king wing sing thing
cake lake snake rake make
moon spoon soon noon tune
star car far jar bar
boat coat goat note throat
chair bear hair pear fair
hand sand land band stand
nose rose toes hose goes
ball wall tall fall call
rain train plane chain brain
bed red head bread said
sun run fun bun one
book cook hook look took
door floor four more store
bell shell well tell smell
fish dish wish
clock sock rock lock block
blue shoe two zoo new
day play say way grey
snow go toe show low
pen ten men hen den
pig big dig wig fig
pool school cool rule tool
drink pink sink think link
nail tail mail whale snail
""".strip().splitlines()
)
"""Words that rhyme, a group a line."""

SPELLED = _words("""
banana letter school yellow window garden summer winter coffee bottle rabbit pepper kitchen mirror button silver
orange dinner forest bridge pocket market pencil castle ladder hammer carpet butter cotton tennis balloon giraffe
chicken blanket station teacher morning evening weather holiday journey village thunder feather
""")
"""Words whose letters are counted, spelled out, or named."""

CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "animal": {
        "mammal": _words("dog cat horse cow whale bat tiger elephant mouse rabbit lion sheep wolf bear dolphin"),
        "bird": _words("sparrow eagle owl penguin duck robin crow pigeon swan parrot gull hawk hen stork ostrich"),
        "fish": _words("salmon trout tuna shark cod herring carp sardine pike eel perch mackerel haddock goldfish sole"),
        "insect": _words(
            "ant bee wasp butterfly beetle mosquito fly moth grasshopper cricket ladybird flea dragonfly termite hornet"
        ),
    },
    "food": {
        "fruit": _words("apple banana pear grape cherry mango peach plum melon strawberry lemon apricot orange kiwi raspberry"),
        "vegetable": _words(
            "carrot potato onion cabbage spinach broccoli lettuce turnip celery leek radish cauliflower asparagus "
            "beetroot parsnip"
        ),
        "drink": _words("water milk coffee tea juice lemonade cocoa beer wine cider cola soda whisky champagne rum"),
        "grain": _words("wheat rice barley oats rye maize millet spelt sorghum buckwheat quinoa teff"),
    },
    "thing": {
        "tool": _words("hammer saw drill wrench pliers screwdriver chisel axe spade rake file hoe shovel crowbar sickle"),
        "furniture": _words(
            "table chair sofa bed desk wardrobe bookcase stool armchair cupboard bench dresser cabinet bunk couch"
        ),
        "clothing": _words("shirt trousers jacket sock glove hat scarf skirt coat dress sweater belt boot vest cap"),
        "instrument": _words(
            "violin piano guitar flute trumpet drum cello harp clarinet saxophone oboe tuba banjo trombone accordion"
        ),
        "vehicle": _words("car bus train bicycle truck tram plane ship van motorcycle ferry scooter taxi helicopter tractor"),
    },
}
"""Things by their kind, where nobody would argue."""
