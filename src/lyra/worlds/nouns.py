"""Nouns: which thing that the worlds can draw a word means.

The words are hyponyms of ``ANCHORS`` in WordNet 3.0 (``recipes/words.py``), with what WordNet lacks or reads otherwise
in ``FURTHER``.
"""

import gzip
import json
from functools import cache
from pathlib import Path

NOUNS_FILE = Path(__file__).with_name("nouns.json.gz")

ANCHORS: dict[str, tuple[str, ...]] = {
    "cabinet": ("furniture", "chest_of_drawers", "cabinet", "wardrobe", "sideboard", "chest.2"),
    "appliance": ("home_appliance", "kitchen_appliance"),
    "chair": ("seat.3", "chair"),
    "armchair": ("armchair",),
    "sofa": ("sofa",),
    "stool": ("stool",),
    "bench": ("bench",),
    "table": ("table.2",),
    "desk": ("desk",),
    "bed": ("bed",),
    "bookshelf": ("bookcase", "bookshelf", "shelf"),
    "lamp": ("lamp.2", "lamp"),
    "rug": ("rug",),
    "fireplace": ("fireplace",),
    "piano": ("piano",),
    "stove": ("stove", "oven"),
    "fridge": ("refrigerator", "electric_refrigerator"),
    "bathtub": ("bathtub",),
    "toilet": ("toilet.2",),
    "sink": ("sink",),
    "basket": ("basket",),
    "barrel": ("barrel.2",),
    "box": ("box", "case.5", "bag", "bag.4"),
    "ball": ("ball", "ball.3"),
    "candle": ("candle",),
    "television": ("television_receiver", "display.6"),
    "statue": ("statue", "sculpture.2"),
    "toy": ("plaything", "doll"),
    "picture": ("painting", "picture", "poster", "photograph", "drawing.2"),
    "mirror": ("mirror",),
    "clock": ("clock",),
    "window": ("window",),
    "door": ("door",),
    "curtain": ("curtain",),
    "book": ("book.2", "book", "magazine", "magazine.2"),
    "cup": ("cup", "mug.4", "drinking_vessel", "glass.2"),
    "bottle": ("bottle", "jar"),
    "bowl": ("bowl", "bowl.3"),
    "plate": ("plate.4", "dish.2", "dish", "tray"),
    "vase": ("vase",),
    "teapot": ("teapot", "pot", "kettle", "pitcher.2"),
    "laptop": ("computer", "laptop"),
    "fruit": ("edible_fruit", "vegetable"),
    "apple": ("apple",),
    "pear": ("pear",),
    "citrus": ("citrus",),
    "lemon": ("lemon",),
    "banana": ("banana.2",),
    "melon": ("melon",),
    "grapes": ("grape",),
    "cherry": ("cherry.3", "berry"),
    "bread": ("bread",),
    "cake": ("cake.3", "pie"),
    "house": ("house", "building", "dwelling", "hut.2"),
    "hall": ("hall.4", "museum", "mansion.2"),
    "church": ("church.2", "place_of_worship"),
    "temple": ("temple",),
    "pagoda": ("pagoda",),
    "tower": ("tower", "skyscraper", "lighthouse"),
    "castle": ("castle.2", "fortress", "palace"),
    "tent": ("tent",),
    "flower": ("flower",),
    "plant": ("houseplant", "fern", "cactus"),
    "bush": ("shrub",),
    "tree": ("tree",),
    "conifer": ("conifer",),
    "palm": ("palm.3",),
    "car": ("car",),
    "truck": ("truck", "bus", "van.5"),
    "bicycle": ("bicycle", "motorcycle"),
    "cart": ("cart", "carriage.2", "wagon"),
    "boat": ("boat", "ship"),
    "person": ("person",),
    "animal": ("mammal",),
    "dog": ("dog",),
    "cat": ("cat", "big_cat"),
    "horse": ("horse", "equine"),
    "cow": ("cow.2", "bovine"),
    "sheep": ("sheep", "goat"),
    "bird": ("bird",),
    "streetlamp": ("streetlight", "lamppost"),
    "fence": ("fence",),
    "fountain": ("fountain",),
    "rock": ("rock", "stone"),
    "well": ("well",),
    "blanket": ("blanket", "bedclothes", "towel"),
    "bridge": ("bridge",),
    "ladder": ("ladder",),
    "umbrella": ("umbrella",),
    "guitar": ("stringed_instrument",),
    "tractor": ("tractor",),
    "snowman": ("snowman",),
    "mailbox": ("mailbox",),
    "blackboard": ("blackboard",),
    "easel": ("easel",),
    "stall": ("stall.2",),
    "campfire": ("campfire",),
    "knife": ("knife.1", "fork", "spoon"),
}
"""Synsets (a lemma, and the number of its sense where it is not the first) at or under which a word means a thing."""

FURTHER: dict[str, str] = {
    "cabinet": "cupboard, dresser, closet, wardrobe, sideboard, nightstand, bedside table, drawer, drawers, hutch, "
    "chest of drawers, chest, console, locker, counter, kitchen counter, kitchen island, worktop, tv stand, shelf "
    "unit,"
    "furniture, kitchen cabinet",
    "appliance": "washing machine, dishwasher, washer, dryer, microwave, toaster, printer, machine",
    "chair": "seat, dining chair, office chair, deck chair, deckchair, lounger, swivel chair, throne, rocking chair",
    "armchair": "easy chair, recliner, lounge chair, wing chair, club chair, wingback chair, wingback, bean bag, "
    "beanbag, pouf",
    "sofa": "couch, settee, loveseat, love seat, davenport, divan, chesterfield, futon, daybed, sectional, lounge, "
    "chaise longue, sofa bed",
    "stool": "ottoman, footstool, bar stool, hassock, footrest, barstool",
    "bench": "park bench, pew, garden bench",
    "table": "coffee table, dining table, side table, end table, kitchen table, tea table, night table, trestle, "
    "round table, picnic table",
    "desk": "writing desk, bureau, workstation, writing table, secretary, school desk",
    "bed": "bunk, cot, crib, mattress, double bed, single bed, bunk bed, four poster, hammock, king size bed",
    "bookshelf": "bookcase, shelves, shelf, book shelf, shelving",
    "lamp": "floor lamp, table lamp, standing lamp, lantern, reading lamp, desk lamp, lampshade, chandelier, "
    "light bulb, spotlight",
    "rug": "carpet, mat, doormat, tapestry, bath mat, yoga mat",
    "fireplace": "hearth, chimney, open fire, mantel, mantelpiece, fire place",
    "piano": "grand piano, upright piano, harpsichord, organ",
    "stove": "cooker, oven, range, wood stove, hob, grill, barbecue",
    "fridge": "refrigerator, freezer, icebox",
    "bathtub": "bath, tub, hot tub, jacuzzi, bath tub",
    "toilet": "loo, wc, lavatory",
    "sink": "washbasin, basin, wash basin, washstand",
    "basket": "hamper, wicker basket, bin, trash can, wastebasket, bucket, pail, laundry basket",
    "barrel": "keg, cask, drum",
    "box": "crate, carton, package, parcel, suitcase, trunk, luggage, briefcase, toolbox, cube, cardboard box, "
    "present, gift, backpack, bag, cushion, pillow, treasure chest, schoolbag",
    "ball": "football, basketball, soccer ball, beach ball, sphere, globe, balloon, orb, tennis ball",
    "candle": "candlestick, taper, tea light",
    "television": "tv, telly, tv set, screen, television set, monitor, flat screen",
    "statue": "sculpture, bust, figurine, monument, idol",
    "toy": "teddy, teddy bear, plush, doll, stuffed animal, robot, stuffed toy",
    "picture": "painting, poster, photograph, photo, artwork, portrait, framed picture, print, canvas, mural, map, "
    "calendar, framed photo",
    "mirror": "looking glass",
    "clock": "wall clock, grandfather clock",
    "window": "windowpane, skylight",
    "door": "doorway, gate, entrance",
    "curtain": "drape, blind, shutter",
    "book": "novel, notebook, magazine, dictionary, newspaper, pile of books, stack of books",
    "cup": "mug, glass, tumbler, goblet, coffee cup, teacup, chalice, wine glass, drinking glass, espresso, "
    "cappuccino, coffee, tea, cup of coffee, cup of tea, coffee mug, tea cup, mug of coffee, glass of water",
    "bottle": "flask, jar, wine bottle, vial, carafe, wine, thermos, can, tin, bottle of wine, water bottle",
    "bowl": "soup bowl, salad bowl, fruit bowl, bowl of fruit, bowl of soup",
    "plate": "saucer, dish, platter, tray, dinner plate",
    "vase": "urn, flower vase, amphora, vase of flowers, vase with flowers",
    "teapot": "kettle, coffee pot, jug, pitcher, pot, saucepan, watering can, tea pot",
    "laptop": "notebook computer, computer, pc, laptop computer, tablet, keyboard, notepad computer",
    "fruit": "vegetable, tomato, peach, plum, potato, pumpkin, onion",
    "apple": "crab apple",
    "pear": "avocado",
    "citrus": "orange, tangerine, mandarin, clementine, grapefruit",
    "lemon": "lime",
    "banana": "bunch of bananas, plantain",
    "melon": "watermelon, cantaloupe",
    "grapes": "grapes, bunch of grapes, grape",
    "cherry": "strawberry, blueberry, raspberry, berry",
    "bread": "loaf, baguette, bun, roll, croissant, loaf of bread, pastry, doughnut, donut, cookie",
    "cake": "pie, birthday cake, cupcake, muffin, tart, cheesecake",
    "house": "cottage, hut, cabin, home, barn, shed, villa, bungalow, farmhouse, chalet, lodge, building, shop, store, "
    "inn, tavern, mill, windmill, garage, stable, apartment, school, log cabin, farm house",
    "hall": "mansion, manor, museum, townhall, town hall, station, manor house, country house",
    "church": "chapel, cathedral, abbey, minster, mosque, monastery, basilica",
    "temple": "shrine, parthenon, greek temple, roman temple",
    "pagoda": "stupa, chinese temple, japanese temple",
    "tower": "skyscraper, lighthouse, belfry, watchtower, bell tower, steeple, high rise, minaret, office block, "
    "clock tower, water tower",
    "castle": "fortress, palace, citadel, stronghold, chateau, fort",
    "tent": "tipi, yurt, marquee, pavilion, tepee",
    "flower": "rose, tulip, daisy, sunflower, blossom, bouquet, lily, orchid, poppy, bunch of flowers, daffodil",
    "plant": "potted plant, pot plant, houseplant, cactus, fern, ficus, bonsai, rubber plant, monstera, succulent, "
    "house plant, flower pot, flowerpot",
    "bush": "shrub, hedge, shrubbery, thicket, rose bush",
    "tree": "oak, birch, maple, willow, apple tree, cherry tree, olive tree, oak tree, lime tree, fruit tree, lemon "
    "tree, orange tree",
    "conifer": "pine, fir, spruce, cedar, pine tree, fir tree, christmas tree, cypress, evergreen, larch",
    "palm": "palm tree, coconut palm, coconut tree",
    "car": "automobile, auto, sedan, taxi, cab, vehicle, limousine, convertible, sports car, hatchback, suv, jeep, "
    "motorcar, station wagon, limo, sportscar, race car, racing car",
    "truck": "lorry, bus, van, pickup, coach, minibus, camper, tram, caravan, fire engine, trailer, pickup truck, "
    "fire truck, camper van",
    "bicycle": "bike, cycle, motorbike, motorcycle, scooter, moped, vespa",
    "cart": "wagon, trolley, carriage, wheelbarrow, handcart",
    "boat": "ship, rowboat, sailboat, canoe, yacht, ferry, rowing boat, barge, kayak, fishing boat, vessel, dinghy, "
    "sailing boat",
    "person": "man, woman, child, boy, girl, somebody, pedestrian, figure, human, kid, lady, guy, gentleman, "
    "farmer, tourist, worker, walker, crowd, someone, old man, old woman, couple of people, guard, guide, cook, "
    "nurse, model, soldier, knight, bride, monk,"
    "shepherd, teenager, cyclist, hiker, fisherman, policeman, gardener, groom, player, referee, astronaut, family",
    "animal": "creature, pig, fox, bear, deer, elephant, rabbit, beast",
    "dog": "puppy, labrador, dalmatian, retriever, terrier, spaniel, beagle, dachshund, hound, pup, doggy, poodle",
    "cat": "kitten, kitty, pussycat, tomcat",
    "horse": "pony, stallion, mare, foal, donkey, zebra",
    "cow": "bull, ox, calf, cattle, buffalo",
    "sheep": "lamb, goat, ram, ewe",
    "bird": "duck, pigeon, seagull, hen, chicken, goose, crow, swan, gull, heron, flamingo, owl",
    "streetlamp": "street lamp, street light, lamp post, lamppost, streetlight, street lantern, traffic light",
    "fence": "railing, picket fence, palisade, garden fence",
    "fountain": "water fountain",
    "rock": "boulder, stone, cliff, crag",
    "well": "water well, wishing well",
    "blanket": "quilt, duvet, towel, bedspread, picnic blanket, throw, tablecloth, bed cover, comforter",
    "bridge": "footbridge, jetty, pier, dock, boardwalk, wharf",
    "ladder": "step ladder, stepladder",
    "umbrella": "parasol, beach umbrella, sunshade",
    "guitar": "violin, cello, banjo, ukulele, electric guitar",
    "tractor": "combine, digger, excavator, bulldozer",
    "snowman": "snow man",
    "mailbox": "letterbox, postbox, letter box, post box",
    "blackboard": "chalkboard, whiteboard, notice board, bulletin board",
    "easel": "drawing board",
    "stall": "market stall, booth, kiosk, fruit stand, market stand, food stall",
    "campfire": "bonfire, camp fire, fire, fire pit, firepit",
    "knife": "fork, spoon, cutlery",
}
"""What people say of these things that WordNet says otherwise or not."""


@cache
def said_phrases() -> frozenset[str]:
    """What ``FURTHER`` names."""
    return frozenset(phrase for line in FURTHER.values() for phrase in line.split(", "))


@cache
def thing_nouns() -> dict[str, str]:
    """The thing that each noun means, of up to three words."""
    found = {}
    for name, line in json.loads(gzip.decompress(NOUNS_FILE.read_bytes())).items():
        found |= dict.fromkeys(line.split(" | "), name)
    for name, line in FURTHER.items():
        found |= dict.fromkeys([name, *line.split(", ")], name)
    return found
