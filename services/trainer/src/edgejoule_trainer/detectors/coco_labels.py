"""COCO's 80 categories: ids run to 90 with gaps (instances_val2017.json, "categories")."""

from __future__ import annotations

from edgejoule.records import Label

_NAMES = """
1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light|11 fire hydrant
13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow|22 elephant|23 bear|24 zebra
25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee|35 skis|36 snowboard|37 sports ball
38 kite|39 baseball bat|40 baseball glove|41 skateboard|42 surfboard|43 tennis racket|44 bottle|46 wine glass|47 cup
48 fork|49 knife|50 spoon|51 bowl|52 banana|53 apple|54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza
60 donut|61 cake|62 chair|63 couch|64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse|75 remote
76 keyboard|77 cell phone|78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase|87 scissors
88 teddy bear|89 hair drier|90 toothbrush
"""


def coco80() -> list[Label]:
    """The 80 categories in the order in which detectors with 80 score columns have them.

    >>> labels = coco80(); (len(labels), labels[0].name, labels[-1].id)
    (80, 'person', 90)
    """
    entries = (entry.split(" ", 1) for line in _NAMES.split("\n") for entry in line.split("|") if entry)
    return [Label(id=int(number), name=name) for number, name in entries]


def coco90() -> list[Label]:
    """The 90 columns of detectors whose column i is category id i + 1; the ten ids that COCO left out are empty.

    >>> labels = coco90(); (len(labels), labels[10].id, labels[11].id, labels[89].name)
    (90, 11, None, 'toothbrush')
    """
    known = {label.id: label for label in coco80()}
    return [known.get(number, Label(id=None, name=f"unused {number}")) for number in range(1, 91)]
