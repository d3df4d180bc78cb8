"""The words of procedural footage: what a thing may be called, what colour it has, what it can do.

Everything here is three-valued. A `Label` keeps what is certainly true and what may be true, so that a
description counts as unique only when no other thing could possibly be meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.engine.wording import PAIRS, UNCOUNTED

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")


@dataclass(frozen=True, slots=True)
class Label:
    """What may be said of one thing: the row of the attribute table.

    `nouns`: names that are certainly right, most specific first; none for a thing nobody could name.
    `maybe_nouns`: further names that could be right. `colours` and `maybe_colours` likewise; `dressed`: the
    colour is that of the clothes ("in red"). `traits` and `maybe_traits`: keys of `QUESTIONS`.
    """

    nouns: tuple[str, ...] = ()
    maybe_nouns: frozenset[str] = frozenset()
    colours: frozenset[str] = frozenset()
    maybe_colours: frozenset[str] = frozenset()
    dressed: bool = False
    traits: frozenset[str] = frozenset()
    maybe_traits: frozenset[str] = frozenset()

    def is_a(self, noun: str) -> bool:
        return noun in self.nouns

    def may_be_a(self, noun: str) -> bool:
        return noun in self.nouns or noun in self.maybe_nouns


NAMELESS = Label()


# ---- classes ----------------------------------------------------------------------------------------------

# noun | kinds, narrow to wide | traits ("?": perhaps) | names of pictures that show it (default: the noun)
_TABLE = """
man | person | human | dancer man, levitating suit
woman | person | human | dancer woman, sari, pregnant
boy | child, person | human |
girl | child, person | human |
child | person | human |
person | | human | adult, standing, walking, running, kneeling, shrug, raising hand, person walking
baby | person | human |
astronaut | person | human |
farmer | person | human |
cook | person | human |
police officer | person | human | police
firefighter | person | human |
construction worker | person | human |
skier | person | human |
snowboarder | person | human |
surfer | person | human | surfing
cyclist | person | human wheels? ridden? | biking, mountain biking
dog | animal | barks | dog, poodle, guide dog, service dog
cat | animal | | cat, black cat
horse | animal | ridden? | horse, racehorse
cow | animal | milk eaten? | cow, ox, water buffalo
sheep | animal | wool milk? eaten? | sheep, ram
goat | animal | milk wool? eaten? |
pig | animal | eaten? | pig, boar
rabbit | animal | hops eaten? |
mouse | animal | | mouse, rat
elephant | animal | trunk ridden? | elephant, mammoth
giraffe | animal | neck |
zebra | animal | stripes ridden? |
lion | animal | | 
tiger | animal | stripes? |
leopard | animal | |
bear | animal | swims? | polar bear
camel | animal | ridden? milk? neck? wool? | camel, bactrian camel
llama | animal | wool neck? |
deer | animal | hops? eaten? | deer, moose
kangaroo | animal | hops |
monkey | animal | | monkey, gorilla, orangutan
hedgehog | animal | |
squirrel | animal | hops? | chipmunk
rhino | animal | |
hippo | animal | swims |
crocodile | animal | swims |
lizard | animal | |
snake | animal | swims? |
frog | animal | hops swims |
turtle | animal | swims? shell |
snail | animal | shell eaten? |
duck | bird, animal | flies swims eaten? |
chicken | bird, animal | flies? eaten? | chicken, rooster, turkey
eagle | bird, animal | flies |
owl | bird, animal | flies |
parrot | bird, animal | flies |
flamingo | bird, animal | flies neck? swims? |
swan | bird, animal | flies swims neck? |
penguin | bird, animal | swims |
peacock | bird, animal | flies? neck? |
bird | animal | flies? swims? | bird, black bird, peace
fish | animal | swims eaten? | fish, tropical fish, blowfish
shark | fish, animal | swims eaten? |
dolphin | animal | swims |
whale | animal | swims | whale, humpback whale
octopus | animal | swims eaten? | octopus, squid
crab | animal | swims? eaten? shell? | crab, lobster
butterfly | insect, animal | flies |
bee | insect, animal | flies honey |
beetle | insect, animal | flies? | beetle, lady bug
ant | insect, animal | flies? |
spider | animal | web |
car | vehicle | wheels ridden | automobile, taxi, police car, sport utility vehicle, pickup truck, racing car
bus | vehicle | wheels ridden | bus, minibus, trolleybus
truck | vehicle | wheels ridden | delivery truck, articulated lorry, fire engine
ambulance | vehicle | wheels ridden |
tractor | vehicle | wheels ridden |
train | vehicle | wheels ridden | locomotive, railway car, bullet train, high speed train, tram car
bicycle | vehicle | wheels ridden |
motorcycle | vehicle | wheels ridden | motorcycle, motor scooter
scooter | vehicle | wheels ridden | kick scooter
skateboard | toy, vehicle | wheels ridden |
airplane | vehicle | flies wheels? ridden | airplane, small airplane
helicopter | vehicle | flies wheels? ridden |
rocket | vehicle | flies ridden? |
boat | vehicle | sails ridden | boat, sailboat, motor boat, speedboat, canoe
ship | vehicle | sails ridden | ship, ferry, passenger ship
shopping cart | | wheels carries |
balloon | toy | flies? |
kite | toy | flies? |
ball | toy | ballgame | soccer ball, basketball, volleyball, baseball, softball, sports ball
tennis ball | ball, toy | ballgame | tennis ball
teddy bear | toy | |
yo-yo | toy | | yo yo
guitar | instrument | music |
violin | instrument | music |
trumpet | instrument | music |
saxophone | instrument | music |
drum | instrument | music | drum, long drum
piano | instrument | music | piano
accordion | instrument | music |
hammer | tool | hammers |
axe | tool | cuts hammers? |
saw | tool | cuts |
scissors | tool | cuts |
knife | tool | cuts | kitchen knife, dagger, knife
screwdriver | tool | |
wrench | tool | hammers? |
shovel | tool | |
broom | tool | |
ladder | tool | |
bucket | container | carries |
basket | container | carries |
key | | unlocks | key, old key
lock | | | locked, unlocked
magnet | | |
flashlight | tool | light |
candle | | light |
light bulb | | light |
camera | | photos | camera, camera flash
telephone | | calls |
mobile phone | | calls photos? light? clock? | mobile phone, cell phone
laptop | | photos? calls? clock? reads? | laptop computer, laptop
computer | | calls? clock? photos? reads? | desktop computer, computer
keyboard | | |
computer mouse | | | computer mouse
television | | reads? light? clock? | television, tv, monitor
clock | | clock | alarm clock, mantelpiece clock, clock, three o clock, ten o clock, eight o clock
watch | | clock worn |
hourglass | | clock? | hourglass done, hourglass not done
book | | reads | blue book, green book, orange book, closed book, open book, book, notebook
newspaper | | reads | newspaper, rolled up newspaper
envelope | | reads? |
umbrella | | dry | umbrella, closed umbrella, umbrella in rain
hat | clothing | worn dry? | hat, top hat, woman’s hat, flat cap, cap, beanie, beret, billed cap
eyeglasses | clothing | worn | glasses, sunglasses
crown | | worn |
dress | clothing | worn | dress, kimono
shirt | clothing | worn | shirt, t-shirt, t shirt, long-sleeved top, vest, running shirt
jacket | clothing | worn dry? | jacket, coat
skirt | clothing | worn |
shorts | clothing | worn |
trousers | clothing | worn | pants, jeans
shoe | footwear, clothing | worn | man’s shoe, running shoe, hiking boot, high heeled shoe, boot, flat shoe
footwear | clothing | worn | shoes, sandals, slippers
scarf | clothing | worn |
gloves | clothing | worn |
necktie | clothing | worn | necktie, tie
backpack | bag | carries worn? | school backpack, backpack
handbag | bag | carries | handbag, purse, clutch bag
suitcase | bag | carries wheels? | suitcase, luggage, briefcase
box | container | carries? | package, food box, brown cardboard
bottle | container | drunk? | bottle, plastic bottle, baby bottle
can | container | drunk? | tin can, can, crushed can, canned food
jar | container | drunk? | jar, plastic jar
cup | container | drunk | cup, hot beverage, teacup without handle, cup with straw
glass | container | drunk | drinking glass, glass of milk, tumbler glass, cocktail glass, wine glass
teapot | container | drunk? |
bowl | container | drunk? | bowl, plastic bowl
vase | container | | vase, amphora
spoon | tool | |
fork | tool | |
chair | furniture | sits | chair, seat
couch | furniture | sits | couch
bench | furniture | sits |
bed | furniture | sits? |
toilet | furniture | sits |
stop sign | | reads? |
parking meter | | reads? clock? |
traffic light | | light | vertical traffic light, traffic light, horizontal traffic light
fire extinguisher | | |
fire hydrant | | |
tent | building | dry |
house | building | dry? | house, house with garden
church | building | dry? |
castle | building | dry? | castle, Japanese castle
tree | plant | grows | deciduous tree, evergreen tree, palm tree, leafless tree
cactus | plant | grows |
potted plant | plant | grows | potted plant
sunflower | flower, plant | grows |
rose | flower, plant | grows |
tulip | flower, plant | grows |
flower | plant | grows | hibiscus, blossom, cherry blossom, lotus, hyacinth
mushroom | | grows eaten? | mushroom, brown mushroom
leaf | | grows? | maple leaf, fallen leaf
apple | fruit, food | eaten | apple, red apple, green apple, yellow apple
banana | fruit, food | eaten | banana, red banana
orange | fruit, food | eaten |
tangerine | fruit, food | eaten | mandarin, clementine, tangerine, tangelo
lemon | fruit, food | eaten |
lime | fruit, food | eaten |
grapefruit | fruit, food | eaten |
pear | fruit, food | eaten |
peach | fruit, food | eaten | peach, nectarine
apricot | fruit, food | eaten |
plum | fruit, food | eaten |
cherry | fruit, food | eaten | cherry, cherries
strawberry | fruit, food | eaten |
grape | fruit, food | eaten | white grape, red grape
pineapple | fruit, food | eaten |
mango | fruit, food | eaten |
melon | fruit, food | eaten | melon, cantaloupe
watermelon | fruit, food | eaten |
kiwi | fruit, food | eaten | kiwi, kiwi fruit
avocado | fruit, food | eaten |
coconut | fruit, food | eaten drunk? |
papaya | fruit, food | eaten |
pomegranate | fruit, food | eaten |
lychee | fruit, food | eaten |
guava | fruit, food | eaten |
quince | fruit, food | eaten |
persimmon | fruit, food | eaten |
passion fruit | fruit, food | eaten | passion fruit, granadilla
dragon fruit | fruit, food | eaten |
star fruit | fruit, food | eaten |
carrot | vegetable, food | eaten |
tomato | food | eaten |
bell pepper | vegetable, food | eaten | bell pepper
cucumber | food | eaten |
eggplant | food | eaten |
potato | vegetable, food | eaten |
onion | vegetable, food | eaten |
broccoli | vegetable, food | eaten |
bread | food | eaten | bread, baguette bread
croissant | food | eaten |
hamburger | food | eaten |
hot dog | food | eaten |
pizza | food | eaten |
sandwich | food | eaten |
doughnut | food | eaten | doughnut, donut
cookie | food | eaten |
cake | food | eaten | cake, birthday cake, shortcake, cupcake
ice cream | food | eaten | ice cream, soft ice cream
egg | food | eaten |
cheese | food | eaten | cheese wedge
snowman | | |
gift | container | carries? | wrapped gift
crystal ball | | |
"""

# What else a noun of the table may be called, by someone who looks less closely.
_KIN: Mapping[str, frozenset[str]] = {
    "person": frozenset({"man", "woman", "boy", "girl", "child"}),
    "child": frozenset({"boy", "girl", "baby"}),
    "baby": frozenset({"child", "boy", "girl"}),
    "boy": frozenset({"baby"}),
    "girl": frozenset({"baby"}),
    "crystal ball": frozenset({"ball", "toy"}),
    "truck": frozenset({"car"}),
    "ambulance": frozenset({"car", "truck"}),
    "tractor": frozenset({"truck"}),
    "boat": frozenset({"ship"}),
    "ship": frozenset({"boat"}),
    "computer mouse": frozenset({"mouse"}),
    "scooter": frozenset({"motorcycle", "toy"}),
    "motorcycle": frozenset({"scooter", "bicycle"}),
    "laptop": frozenset({"computer"}),
    "computer": frozenset({"television", "keyboard"}),
    "television": frozenset({"computer"}),
    "telephone": frozenset({"mobile phone"}),
    "mobile phone": frozenset({"telephone"}),
    "watch": frozenset({"clock"}),
    "hourglass": frozenset({"clock"}),
    "gift": frozenset({"box"}),
    "suitcase": frozenset({"box"}),
    "footwear": frozenset({"shoe"}),
    "shorts": frozenset({"trousers"}),
    "skirt": frozenset({"dress"}),
    "dress": frozenset({"skirt", "shirt"}),
    "shirt": frozenset({"jacket", "dress"}),
    "jacket": frozenset({"shirt"}),
    "cup": frozenset({"glass"}),
    "glass": frozenset({"cup"}),
    "jar": frozenset({"glass", "bottle"}),
    "can": frozenset({"jar", "bottle"}),
    "bottle": frozenset({"jar"}),
    "bowl": frozenset({"cup"}),
    "tangerine": frozenset({"orange"}),
    "orange": frozenset({"tangerine"}),
    "peach": frozenset({"apricot"}),
    "apricot": frozenset({"peach"}),
    "tomato": frozenset({"fruit", "vegetable"}),
    "cucumber": frozenset({"fruit", "vegetable"}),
    "eggplant": frozenset({"fruit", "vegetable"}),
    "mushroom": frozenset({"vegetable", "food", "plant"}),
    "leaf": frozenset({"plant"}),
    "knife": frozenset({"toy"}),
    "hamburger": frozenset({"sandwich"}),
    "bread": frozenset({"baguette"}),
    "guitar": frozenset({"violin"}),
    "chair": frozenset({"bench"}),
    "couch": frozenset({"chair", "bench"}),
    "tent": frozenset({"house"}),
    "church": frozenset({"house"}),
    "castle": frozenset({"house"}),
    "camera": frozenset({"toy"}),
    "snowman": frozenset({"toy", "man", "person"}),
    "teddy bear": frozenset({"bear", "animal"}),
    "skateboard": frozenset({"scooter"}),
    "lizard": frozenset({"crocodile"}),
    "bee": frozenset({"fly"}),
    "rabbit": frozenset({"hare"}),
    "snail": frozenset({"shell"}),
    "sheep": frozenset({"goat"}),
    "goat": frozenset({"sheep"}),
    "lion": frozenset({"cat"}),
    "tiger": frozenset({"cat"}),
    "leopard": frozenset({"cat"}),
    "cyclist": frozenset({"bicycle", "vehicle"}),
    "firefighter": frozenset({"construction worker"}),
}
_PEOPLE = frozenset({"man", "woman", "boy", "girl", "child", "person"})
_UNSEXED = ("astronaut", "farmer", "cook", "police officer", "firefighter", "construction worker", "skier",
            "snowboarder", "surfer", "cyclist")  # fmt: skip

_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice", "fish": "fish",
    "sheep": "sheep", "deer": "deer", "scissors": "scissors", "eyeglasses": "eyeglasses", "shorts": "shorts",
    "trousers": "trousers", "footwear": "footwear", "gloves": "gloves", "knife": "knives", "leaf": "leaves",
    "scarf": "scarves", "clothing": "clothes", "computer mouse": "computer mice", "passion fruit": "passion fruits",
    "cookie": "cookies",
}  # fmt: skip

# What each trait is asked as. Every question holds its trait's words and no noun of the table.
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "human": ("Who is the only human being here?", "Which of these is human?"),
    "barks": ("What would bark at a stranger?", "Which of these guards a home by barking?"),
    "milk": ("Which of these gives milk?",),
    "wool": ("What is shorn for its wool?", "Which of these gives wool?"),
    "hops": ("What gets about by hopping?", "Which of these hops?"),
    "trunk": ("What has a trunk and tusks?", "Which of these drinks through its trunk?"),
    "neck": ("What can reach high leaves with its very long neck?",),
    "stripes": ("What has black and white stripes?",),
    "swims": ("What is at home in the water?", "Which of these is a good swimmer?"),
    "flies": ("What is able to fly?", "Which of these can rise into the air by itself?"),
    "shell": ("What carries its home on its back?",),
    "honey": ("What makes honey?",),
    "web": ("What spins a web?",),
    "wheels": ("What rolls on wheels?", "Which of these has wheels?"),
    "ridden": ("What could take someone to another town?", "What can people travel on or in?"),
    "sails": ("What is built to float across the sea?",),
    "ballgame": ("What is kicked or thrown in a game?",),
    "music": ("What could be used to play music?", "Which of these would a musician use?"),
    "hammers": ("What could drive a nail into wood?",),
    "cuts": ("What could be used to cut something?", "Which of these has a sharp blade?"),
    "carries": ("What could be used to carry things?",),
    "unlocks": ("What opens a locked door?",),
    "light": ("What could light up a dark room?", "Which of these gives light?"),
    "photos": ("What is made for taking photographs?",),
    "calls": ("What could be used to call a friend far away?",),
    "clock": ("What shows the time?", "What tells someone whether it is late?"),
    "reads": ("What is there to read?",),
    "dry": ("What could keep someone dry in the rain?",),
    "worn": ("What can be worn?", "Which of these would someone put on?"),
    "drunk": ("What could someone drink from?",),
    "sits": ("What is made to sit on?",),
    "grows": ("What grows out of the soil?", "Which of these needs sun and water to grow?"),
    "eaten": ("What can be eaten?", "What would someone hungry reach for?"),
}  # fmt: skip

_LARGE_KINDS = frozenset({"person", "animal", "vehicle", "furniture", "building", "tree"})
_SMALL_ANIMALS = frozenset({"insect", "mouse", "snail", "frog", "spider", "lizard", "crab", "hedgehog"})
_FLYERS = frozenset({"airplane", "helicopter", "rocket", "balloon", "kite", "eagle", "bee", "butterfly"})
_SWIMMERS = frozenset({"fish", "shark", "dolphin", "whale", "octopus"})
_SOFT = frozenset({"animal", "person", "clothing", "flower", "plant", "bag"})


@dataclass(frozen=True, slots=True)
class Noun:
    """One row of the table. `pictures`: names of pictures that show it."""

    noun: str
    kinds: tuple[str, ...]
    traits: frozenset[str]
    maybe_traits: frozenset[str]
    pictures: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.noun, *self.kinds))

    @property
    def large(self) -> bool:
        """Whether it belongs in a street or a field rather than on a table."""
        return bool(self.names & _LARGE_KINDS) and not self.names & _SMALL_ANIMALS

    @property
    def floats(self) -> bool:
        """Whether it is seen without ground under it."""
        return bool(self.names & (_FLYERS | _SWIMMERS))

    @property
    def soft(self) -> bool:
        """Whether its outline bends as it moves."""
        return bool(self.names & _SOFT)


@cache
def nouns() -> Mapping[str, Noun]:
    """The table by noun, in its order."""
    return {row.noun: row for row in map(_row, _TABLE.strip().splitlines())}


def _row(line: str) -> Noun:
    noun, kinds, traits, pictures = (cell.strip() for cell in line.split("|"))
    words = traits.split()
    return Noun(
        noun,
        tuple(_listed(kinds)),
        frozenset(word for word in words if not word.endswith("?")),
        frozenset(word[:-1] for word in words if word.endswith("?")),
        (noun, *(name for name in _listed(pictures) if name != noun)),
    )


def _listed(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(",") if name.strip()]


@cache
def kinds() -> frozenset[str]:
    """Names that only stand for groups of nouns: animal, vehicle, fruit, …"""
    return frozenset(kind for row in nouns().values() for kind in row.kinds) - nouns().keys()


@cache
def names_known() -> tuple[str, ...]:
    """The nouns of the table, and the kinds they are of."""
    return (*nouns(), *sorted(kinds()))


@cache
def noun_of_picture(name: str) -> str | None:
    """The noun for what a picture of that name shows, its colour words ignored; None when it is not in the table."""
    by_picture = {picture: row.noun for row in list(nouns().values())[::-1] for picture in row.pictures}
    plain = " ".join(word for word in name.split() if word not in COLOURS or name in by_picture or name == word)
    return by_picture.get(name) or by_picture.get(plain)


def label(noun: str, colours: Iterable[str] = (), maybe_colours: Iterable[str] = (), dressed: bool = False) -> Label:
    """The label of a thing of the table."""
    row = nouns()[noun]
    known = frozenset(colours)
    return Label(
        (noun, *row.kinds),
        _possible_names(row) - row.names,
        known,
        frozenset(maybe_colours) - known,
        dressed,
        row.traits,
        row.maybe_traits,
    )


def named(picture: str) -> Label:
    """The label of what a picture's name says and nothing else; of what is not in the table any kind may be right."""
    noun = noun_of_picture(picture)
    return Label(maybe_nouns=kinds()) if noun is None else label(noun)


def _possible_names(row: Noun) -> frozenset[str]:
    """Names that could also be used of it: its kin, narrower nouns of its own, and what kin are in turn."""
    possible = set(_KIN.get(row.noun, ()))
    possible |= {other.noun for other in nouns().values() if row.noun in other.kinds}
    if row.noun in _UNSEXED:
        possible |= _PEOPLE
    if row.noun == "person":
        possible |= set(_UNSEXED)
    if "person" in row.names:
        # Most pictures of people also show what they wear and carry.
        possible |= {worn.noun for worn in nouns().values() if "clothing" in worn.kinds} | {"backpack", "watch"}
    for name in tuple(possible):
        possible |= set(nouns()[name].kinds) if name in nouns() else set()
    return frozenset(possible)


def possible_traits(names: Iterable[str]) -> frozenset[str]:
    """What anything that goes by one of these names might do."""
    rows = [nouns()[name] for name in names if name in nouns()]
    return frozenset(trait for row in rows for trait in row.traits | row.maybe_traits)


def plural(noun: str) -> str:
    """ "men" of "man"."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|ch|sh|tomato|potato|mango)$", noun) else "s")


def countable(noun: str) -> bool:
    """Whether one says "a ..." and "the two ..." of it."""
    return noun not in PAIRS and noun not in UNCOUNTED


# ---- colours ----------------------------------------------------------------------------------------------

# Share of a thing's pixels from which its colour is certain, and from which someone might use that name.
_CERTAIN, _POSSIBLE = 0.6, 0.07
_NEIGHBOURS: Mapping[str, tuple[str, ...]] = {
    "red": ("orange", "pink", "brown"),
    "orange": ("red", "yellow", "brown"),
    "yellow": ("orange", "green", "brown", "white"),
    "green": ("yellow", "blue"),
    "blue": ("green", "purple", "grey"),
    "purple": ("blue", "pink", "red"),
    "pink": ("red", "purple", "white"),
    "brown": ("orange", "red", "black", "grey", "yellow"),
    "black": ("grey", "brown", "blue"),
    "grey": ("black", "white", "blue", "brown"),
    "white": ("grey", "yellow", "pink"),
}


def colours_of(rgba: NDArray[np.uint8]) -> tuple[frozenset[str], frozenset[str]]:
    """The colours a cut-out (h, w, 4; straight alpha) certainly has, and those it may be said to have."""
    solid = rgba[..., 3] > 127
    if not solid.any():
        return frozenset(), frozenset(COLOURS)
    shares = np.bincount(_named(rgba[..., :3][solid]), minlength=len(COLOURS)) / solid.sum()
    certain = {name for name, share in zip(COLOURS, shares, strict=True) if share >= _CERTAIN}
    possible = {name for name, share in zip(COLOURS, shares, strict=True) if share >= _POSSIBLE}
    possible |= {near for name in certain | possible for near in _NEIGHBOURS[name]}
    return frozenset(certain), frozenset(possible - certain)


def near(colour: str) -> tuple[str, ...]:
    """The names that someone else might give to the same colour."""
    return _NEIGHBOURS[colour]


def _named(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of each pixel's colour name; (n, 3) in, (n,) out."""
    pixels = rgb.astype(np.float32) / 255
    value, least = pixels.max(1), pixels.min(1)
    spread = value - least
    saturation = spread / np.maximum(value, 1e-6)
    hue = _hue(pixels, value, spread)
    edges = np.array([12, 42, 68, 165, 255, 290, 345])
    names = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "red")
    index = np.array([COLOURS.index(name) for name in names])[np.digitize(hue, edges)]
    reddish = (hue < 12) | (hue >= 345)
    index[(value < 0.6) & ((hue >= 12) & (hue < 60) | reddish & (saturation < 0.55))] = COLOURS.index("brown")
    index[((hue < 25) | (hue > 330)) & (saturation < 0.5) & (value > 0.75)] = COLOURS.index("pink")
    grey = saturation < 0.16
    index[grey] = COLOURS.index("grey")
    index[grey & (value > 0.78)] = COLOURS.index("white")
    index[(value < 0.2) | (grey & (value < 0.25))] = COLOURS.index("black")
    return index


def _hue(pixels: NDArray[Any], value: NDArray[Any], spread: NDArray[Any]) -> NDArray[np.float32]:
    """Degrees, 0 for grey."""
    r, g, b = pixels.T
    scale = 60 / np.maximum(spread, 1e-6)
    hue = np.where(value == r, (g - b) * scale, np.where(value == g, (b - r) * scale + 120, (r - g) * scale + 240))
    return np.asarray(hue % 360, np.float32)


def recoloured(known: Label, colours: Iterable[str]) -> Label:
    """The label of the same thing in other colours, each of them certain."""
    certain = frozenset(colours)
    possible = frozenset(other for colour in certain for other in near(colour))
    return replace(known, colours=certain, maybe_colours=possible - certain)
