"""What the furniture catalogue's names mean: a coarse class, and the words of a caption."""

import re
from collections.abc import Collection

# First match wins, on the whole words of the name; order settles "car model", "bar stool".
_BY_NAME = (
    ("food", "apples|bread|butter|cake|fruits?|salad|fries|hamburger|hot dog|milk|steak|sushi|"
             "chicken|sugar|spice|cup cake|oil"),
    ("plant", "tree|plant|flowers?|tulips|orchids|lily|cactus|bamboo|ficus|yucca|spathiphyllum|"
              "bush|hedge|pine|cypress|poplar|maple|beech|acacia|palm|blossom|plant box"),
    ("animal", "bulldog|cat|dog|horse|rabbit"),
    ("bed", "bed|crib|futon|mattress|sleeping bag|hammock"),
    ("seat", "chair|armchair|sofa|couch|stool|bench|seat|puff|ottoman|bank|pool lounge|wheelchair"),
    ("door or window", "door|window|shutter|elevator|blind|velux"),
    ("lamp", "lamp|light|lights|lamppost|chandelier|lantern|spotlight|candle|flashlight|"
             "fluorescent"),
    ("table", "table|desk|workbench|island|chopping board"),
    ("storage", "shelves|cabinet|wardrobe|bookcase|chest|cupboard|dresser|locker|box|crate|"
                "rack|trunck|basket|barrel|safe|container|vanity|stand|tray"),
    ("appliance", "oven|stove|cooker|cooktop|fridge|refrigerator|freezer|machine|dryer|washing|"
                  "tv|television|ibook|imac|laptop|keyboard|printer|microwave|hood|toilets|sink|"
                  "bath|bathtub|shower|basin|bidet|radiator|fan|heater|phone|toaster|boiler|"
                  "brewer|mixer|blender|fryer|furnace|fireplace|washbasin|lavatory|urinal|jacuzzi|"
                  "stereo|speaker|amplifier|radio|player|projector|playstation|iphone|tablet|"
                  "conditioning|water cooler|coffee maker|scale|kettle|maker|grill|faucet"),
    ("decoration", "rug|carpet|curtain|vase|clock|frame|bathmat|doormat|aquarium|white board|"
                   "puzzle|deer|screen|tatami|calendar|dart"),
    ("building", "column|chimney|fountain|hut|fence|railing|tent|barnum"),
)  # fmt: skip
_BY_CATEGORY = {
    "Characters": "person", "Vehicles": "vehicle", "Lights": "lamp", "Staircases": "building",
    "Doors and windows": "door or window",
}  # fmt: skip
_GROUND = re.compile(
    r"parking|\barrow|crossing|sidewalk|sandpit|rails$|swimming pool", re.IGNORECASE
)
# Names whose words above would mislead.
_EXCEPTIONS = {
    "bread box": "storage", "chest freezer": "appliance", "chopping board": "object",
    "clothes basket": "storage", "clothes hanger": "object", "clothes horse": "object",
    "clothes rack": "storage", "clothes washing machine": "appliance",
    "contemporary living room": "storage", "dog house": "building", "island bath": "appliance",
    "glass door cabinet": "storage", "intercom with screen": "appliance", "knife stand": "object",
    "motorbike": "vehicle", "paper towel holder": "object", "rocking horse": "object",
    "rowboat": "vehicle", "shower curtain": "decoration", "shower door": "appliance",
    "spray bottle": "object", "table fan": "appliance", "table tennis bat": "object",
    "tv remote control": "object", "vase": "decoration", "folded clothes": "object",
    "hanging clothes": "object", "doll house": "object", "car model": "object",
    "biplane": "object", "bottle": "object", "wine bottle": "object", "beer bottle": "object",
    "medicine box": "object", "camping tent": "building", "rectangle swimming pool": "object",
    "round swimming pool": "object", "letters box": "object", "letter tray": "object",
    "tray": "object", "towel rack": "object", "abdominal bench": "object",
}  # fmt: skip


def coarse_class(name: str, category: str, tags: Collection[str]) -> str:
    """The coarse class of a catalogue entry, `object` for what fits no other.

    >>> coarse_class("Bar stool", "Living room", ("Chair",))
    'seat'
    >>> coarse_class("Table tennis bat", "Miscellaneous", ("Sport",))
    'object'
    """
    text = name.lower()
    if text in _EXCEPTIONS:
        return _EXCEPTIONS[text]
    if _GROUND.search(text):
        return "ground"
    if category == "Characters":
        return "animal" if "Animal" in tags else "person"
    if category in _BY_CATEGORY:
        return _BY_CATEGORY[category]
    if "Tree" in tags or "Plant" in tags or "Flowers" in tags:
        return "plant"
    for klass, words in _BY_NAME:
        if re.search(rf"\b({words})\b", text):
            return klass
    if "Appliance" in tags or "Electronics" in tags:
        return "appliance"
    return "food" if "Food" in tags else "object"


_SPOKEN = {
    "Female": "woman", "Male": "man", "Holding female": "woman", "Holding male": "man",
    "Sitting female": "sitting woman", "Sitting male": "sitting man",
    "Lying down female": "woman lying down", "Lying down male": "man lying down",
    "Lying down boy": "boy lying down", "Mannequin female": "woman", "Mannequin male": "man",
    "TV 16:9": "TV", "Wall flat TV": "flat TV", "Toilets unit": "toilet", "Puff": "pouf",
    "Trunck": "trunk", "Flipper": "pinball machine", "Hashtray": "ashtray",
    "Short": "pair of shorts",
    "Socket": "sock", "Flacon": "perfume bottle", "Mocassin": "moccasin",
    "Teck chair": "teak chair",
    "Apple iBook": "laptop", "Apple iMac 1998": "computer", "Apple iMac 2004": "computer",
    "Apple iPhone": "smartphone", "Concept Sedan 01": "car", "Concept Sedan 02": "car",
    "Concept Sedan 02 Sport": "sports car", "Ford Focus": "car", "Peugeot 308 CC": "convertible",
    "Renault Scenic": "car", "Seat Leon": "car", "VW new beetle": "car", "Chevrolet": "car",
    "Smart car": "small car", "Yamaha YZR R6": "motorcycle", "Motorbike": "toy motorbike",
    "Contemporary living room": "wall unit", "Barnum": "canopy", "Child hut": "playhouse",
    "Children game": "slide", "Wood bank": "wooden bench", "Little bank": "bench",
    "Captain's bed": "captain's bed", "Black table": "black table", "Round table": "round table",
    "Air conditioning - Internal unit": "air conditioner", "Boiler": "kettle",
    "Air conditioning - External unit": "air conditioner", "Letters box": "letter box",
    "Convertible sofa BZ": "sofa bed", "Opened convertible sofa BZ": "sofa bed",
    "Plate, glass and cutlery": "place setting", "Plate, glasses and cutlery": "place setting",
    "Clear sofa": "light sofa", "Full bookcase": "full bookcase", "Class seat": "school chair",
    "Gaz water heater": "gas water heater", "Lip stick": "lipstick", "Woman shoes": "pair of shoes",
    "Sneakers": "pair of sneakers", "Slippers": "pair of slippers", "Glasses": "pair of glasses",
    "Sunglasses": "pair of sunglasses", "Scissors": "pair of scissors", "Keys": "bunch of keys",
    "Trousers": "pair of trousers", "Headphones": "pair of headphones",
    "Island": "kitchen island", "Island bath": "bathtub", "Bath": "bathtub",
    "Frame Chambord": "photo frame", "Frame Hôi An": "photo frame",
    "Wall lamp artwork": "wall lamp", "Bottle": "bottle", "Rigged fan": "fan",
}  # fmt: skip
_CAPITALS = frozenset({
    "TV", "DVD", "MP3", "SUV", "CCTV", "PlayStation", "Rubik's", "French", "Japanese", "Christmas",
    "Osaka", "Winchester", "Hôi", "An", "Chambord", "Siamese", "Thonet", "Ryokan",
})  # fmt: skip


def spoken_name(name: str) -> str:
    """A catalogue name as one would say it after an article.

    >>> spoken_name("Sitting female"), spoken_name("Double French window 3 panes")
    ('sitting woman', 'double French window')
    """
    if name in _SPOKEN:
        return _SPOKEN[name]
    name = re.sub(r"\s*\(.*\)|\s+(\d+|small) (panes|zones|seats)|\s+\d+°", "", name)
    words = [each if each in _CAPITALS else each.lower() for each in name.split()]
    return " ".join(words)
