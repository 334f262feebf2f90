"""Drawn scenes and true sentences about them, for the built-in demo data."""
import collections
import random

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 240, 180  # of an image, in pixels
FINER = 2                 # scenes are drawn this much larger and reduced, for smooth edges
HORIZON = 82              # y of the line between sky and ground, in pixels
SKYLINE = HORIZON / HEIGHT  # the same from 0 to 1

COLOURS = {
    'red': (214, 40, 40), 'orange': (245, 135, 20), 'yellow': (250, 215, 40),
    'green': (40, 150, 60), 'blue': (40, 90, 215), 'purple': (130, 55, 165),
    'pink': (250, 140, 190), 'brown': (125, 75, 40), 'black': (35, 35, 40),
    'white': (245, 245, 245)}
PAINTS = [name for name in COLOURS if name != 'brown']
FURS = ['brown', 'black', 'white', 'orange']
DARK, SKIN, GLASS, WOOD = (45, 45, 50), (240, 195, 160), (190, 225, 245), (110, 70, 40)


def shaded(colour, factor):
    """The colour darker (factor < 1) or lighter."""
    return tuple(min(255, int(value * factor)) for value in colour)


class Pen:
    """Draws shapes whose coordinates run from 0 to 1 over a box of the image.

    Args:
        canvas: the ImageDraw of an image that is FINER times as large.
        box: left, top, right, bottom, in pixels.
    """

    def __init__(self, canvas, box):
        self.canvas = canvas
        self.left, self.top, right, bottom = (FINER * value for value in box)
        self.width, self.height = right - self.left, bottom - self.top

    def points(self, coordinates):
        return [(self.left + x * self.width, self.top + y * self.height)
                for x, y in zip(coordinates[::2], coordinates[1::2])]

    def polygon(self, colour, *coordinates):
        self.canvas.polygon(self.points(coordinates), fill=colour)

    def rectangle(self, colour, *coordinates):
        self.canvas.rectangle(self.points(coordinates), fill=colour)

    def ellipse(self, colour, *coordinates):
        self.canvas.ellipse(self.points(coordinates), fill=colour)

    def line(self, colour, thickness, *coordinates):
        width = max(1, round(thickness * self.height))
        self.canvas.line(self.points(coordinates), fill=colour, width=width)


def house(pen, colour):
    pen.rectangle(colour, .1, .42, .9, 1)
    pen.polygon((120, 60, 50), 0, .45, .5, 0, 1, .45)
    pen.rectangle(WOOD, .42, .65, .58, 1)
    for x in (.18, .66):
        pen.rectangle(DARK, x, .53, x + .17, .74)
        pen.rectangle(GLASS, x + .02, .55, x + .15, .72)


def tree(pen, colour):
    pen.rectangle(WOOD, .42, .55, .58, 1)
    for x, y in ((.0, .2), (.4, .2), (.2, .0), (.2, .3)):
        pen.ellipse(shaded(colour, .85 + .2 * x), x, y, x + .6, y + .42)


def car(pen, colour):
    pen.polygon(colour, .18, .5, .3, .08, .7, .08, .84, .5)
    pen.polygon(GLASS, .25, .46, .34, .16, .48, .16, .48, .46)
    pen.polygon(GLASS, .52, .46, .52, .16, .66, .16, .76, .46)
    pen.rectangle(colour, .02, .46, .98, .8)
    for x in (.14, .64):
        pen.ellipse(DARK, x, .58, x + .22, 1)
        pen.ellipse((170, 170, 170), x + .07, .71, x + .15, .87)


def bus(pen, colour):
    pen.rectangle(colour, 0, 0, 1, .86)
    for x in (.05, .24, .43, .62, .81):
        pen.rectangle(GLASS, x, .14, x + .14, .46)
    for x in (.14, .66):
        pen.ellipse(DARK, x, .7, x + .18, 1)


def boat(pen, colour):
    pen.rectangle(WOOD, .48, 0, .52, .74)
    pen.polygon((250, 250, 245), .55, .05, .55, .66, .95, .66)
    pen.polygon((225, 225, 220), .45, .12, .45, .66, .12, .66)
    pen.polygon(colour, 0, .72, 1, .72, .82, 1, .18, 1)


def person(pen, colour):
    pen.line(DARK, .09, .38, .6, .34, .98)
    pen.line(DARK, .09, .62, .6, .66, .98)
    pen.line(SKIN, .06, .28, .32, .04, .56)
    pen.line(SKIN, .06, .72, .32, .96, .56)
    pen.polygon(colour, .22, .26, .78, .26, .74, .64, .26, .64)
    pen.ellipse(SKIN, .3, 0, .7, .24)
    pen.polygon((80, 50, 30), .3, .1, .36, .0, .64, .0, .7, .1)


def dog(pen, colour):
    for x in (.16, .28, .58, .7):
        pen.rectangle(shaded(colour, .85), x, .6, x + .08, 1)
    pen.line(colour, .1, .14, .45, .02, .12)
    pen.ellipse(colour, .1, .32, .82, .75)
    pen.ellipse(colour, .64, .06, .94, .5)
    pen.rectangle(colour, .84, .24, 1, .42)
    pen.ellipse(shaded(colour, .6), .64, .08, .74, .42)
    pen.ellipse(DARK, .95, .22, 1, .31)
    pen.ellipse((250, 250, 250), .8, .15, .86, .25)
    pen.ellipse((0, 0, 0), .82, .17, .86, .24)


def cat(pen, colour):
    pen.line(colour, .08, .8, .9, .98, .75, .94, .5)
    pen.ellipse(colour, .15, .4, .85, 1)
    pen.polygon(colour, .2, .3, .22, 0, .48, .16)
    pen.polygon(colour, .8, .3, .78, 0, .52, .16)
    pen.ellipse(colour, .18, .1, .82, .52)
    for x in (.32, .58):
        pen.ellipse((180, 220, 90), x, .24, x + .1, .34)
    pen.polygon((230, 120, 130), .45, .37, .55, .37, .5, .42)


def flower(pen, colour):
    pen.line((50, 130, 50), .05, .5, .4, .5, 1)
    pen.polygon((60, 150, 60), .5, .85, .85, .62, .6, .9)
    for x, y in ((.3, .0), (.55, .12), (.47, .34), (.13, .34), (.05, .12)):
        pen.ellipse(colour, x, y, x + .4, y + .24)
    pen.ellipse((240, 190, 40) if colour[1] < 190 else (150, 90, 30), .34, .19, .66, .4)


def umbrella(pen, colour):
    pen.rectangle((230, 230, 225), .47, .1, .53, 1)
    pen.canvas.pieslice(pen.points((0, 0, 1, 1)), 180, 360, fill=colour)
    for x in (.22, .62):
        pen.polygon(shaded(colour, .75), x, .5, .5, .02, x + .16, .5)


def bird(pen, colour):
    pen.polygon(colour, .34, .5, .06, .02, .62, .42)
    pen.polygon(shaded(colour, .8), .46, .5, .62, 0, .7, .5)
    pen.ellipse(colour, .2, .4, .82, .8)
    pen.ellipse(colour, .7, .3, .94, .64)
    pen.polygon(colour, .28, .55, 0, .5, .02, .8)
    pen.polygon((240, 170, 30), .92, .42, 1, .5, .92, .54)
    pen.ellipse((0, 0, 0), .82, .4, .87, .48)


def balloon(pen, colour):
    pen.line(DARK, .015, .3, .6, .42, .86)
    pen.line(DARK, .015, .7, .6, .58, .86)
    pen.ellipse(colour, 0, 0, 1, .72)
    pen.ellipse(shaded(colour, .8), .3, 0, .7, .72)
    pen.rectangle(WOOD, .38, .84, .62, 1)


def kite(pen, colour):
    pen.line(DARK, .02, .5, .6, .3, .8, .45, 1)
    pen.polygon(colour, .5, 0, 1, .3, .5, .72, 0, .3)
    pen.polygon(shaded(colour, .75), .5, 0, 1, .3, .5, .3)
    pen.polygon(shaded(colour, .75), .5, .72, 0, .3, .5, .3)


# What can be in a scene: the function that draws it, its usual size in pixels, its possible
# colours, other nouns for it than its name, and keys of VERBS.
Kind = collections.namedtuple('Kind', 'draw width height colours synonyms verbs')
PLURALS = {'bus': 'buses', 'person': 'people'}  # the others end in s
NUMBERS = {2: ['two', 'two', 'a pair of'], 3: ['three', 'three', 'a group of']}
# What they do: what it does, and what it is seen doing.
VERBS = {
    'drive': ('drives', 'driving'), 'stop': ('stops', 'parked'), 'stand': ('stands', 'standing'),
    'sit': ('sits', 'sitting'), 'fly': ('flies', 'flying'), 'float': ('floats', 'floating'),
    'sail': ('sails', 'sailing'), 'grow': ('grows', 'growing'), 'run': ('runs', 'running'),
    'wait': ('waits', 'waiting')}
# In the order in which the detector is sure of them.
KINDS = {
    'house': Kind(house, 62, 62, PAINTS, ['building'], ['stand']),
    'bus': Kind(bus, 80, 40, PAINTS, [], ['stop', 'drive']),
    'car': Kind(car, 62, 34, PAINTS, [], ['drive', 'stop']),
    'boat': Kind(boat, 54, 58, PAINTS, ['sailboat'], ['sail', 'float']),
    'person': Kind(person, 26, 56, PAINTS, [], ['stand', 'wait']),
    'dog': Kind(dog, 46, 36, FURS, [], ['stand', 'run']),
    'cat': Kind(cat, 32, 38, FURS, [], ['sit']),
    'umbrella': Kind(umbrella, 56, 54, PAINTS, ['parasol'], ['stand']),
    'balloon': Kind(balloon, 34, 48, PAINTS, ['hot air balloon'], ['float', 'fly']),
    'kite': Kind(kite, 30, 44, PAINTS, [], ['fly']),
    'bird': Kind(bird, 38, 30, PAINTS, [], ['fly']),
    'tree': Kind(tree, 46, 66, ['green', 'orange', 'yellow', 'brown'], [], ['stand', 'grow']),
    'flower': Kind(flower, 26, 40, PAINTS[:-2], [], ['grow']),
}
SKY_KINDS = ['balloon', 'kite', 'bird']
# Grounds: colour, what stands there, words for places on it, words for places in the air above.
GROUNDS = {
    'meadow': ((120, 190, 90), ['house', 'tree', 'flower', 'person', 'dog', 'cat'],
               ['on the grass', 'in a green field', 'on a meadow'],
               ['over the grass', 'above a green field']),
    'beach': ((235, 210, 150), ['person', 'dog', 'umbrella', 'cat'],
              ['on the beach', 'on the sand', 'by the sea'], ['over the beach', 'above the sand']),
    'snow': ((228, 236, 244), ['house', 'tree', 'person', 'dog', 'car'],
             ['in the snow', 'on a snowy field'], ['over the snow', 'above a snowy field']),
    'street': ((150, 150, 155), ['car', 'bus', 'house', 'person', 'dog', 'cat'],
               ['on the street', 'on the road'], ['over the street', 'above the road']),
    'lake': ((80, 150, 200), ['boat'],
             ['on the lake', 'on the water'], ['over the lake', 'above the water']),
}
# Skies: colours at the top and at the horizon, brightness of the ground, words for them, and the
# y and colour of the sun or moon.
SKIES = {
    'sunny': ((95, 170, 235), (200, 228, 250), 1,
              ['on a sunny day', 'in the sunshine', 'under the sun'], (20, (255, 225, 70))),
    'cloudy': ((160, 175, 190), (205, 212, 220), 1,
               ['under a cloudy sky', 'on a cloudy day', 'under the clouds'], None),
    'sunset': ((120, 90, 150), (255, 170, 90), .85,
               ['at sunset', 'in the evening'], (HORIZON - 6, (255, 110, 50))),
    'night': ((12, 18, 50), (40, 50, 100), .55,
              ['at night', 'under the moon', 'in the dark'], (22, (235, 235, 215))),
}


class Group:
    """One to three things of the same kind and colour.

    Attributes:
        name: a key of KINDS, whose value is `kind`.
        boxes: a (left, top, right, bottom) for each thing, in pixels.
    """

    def __init__(self, rng, name, colour, count, scale):
        self.rng = rng
        self.name = name
        self.kind = KINDS[name]
        self.inSky = name in SKY_KINDS
        self.colour = colour
        self.count = count
        self.scale = scale
        self.boxes = []

    def phrase(self):
        """Words for the group, such as 'two red cars', 'a small bird' or 'a person in blue'."""
        rng = self.rng
        words = []
        if self.count == 1 and abs(self.scale - 1) > .25 and rng.random() < .5:
            words.append(rng.choice(['big', 'large'] if self.scale > 1 else ['small', 'little']))
        coloured = rng.random() < .85
        noun = rng.choice([self.name, *self.kind.synonyms])
        if self.count > 1:
            noun = PLURALS.get(noun, noun + 's')
            number = rng.choice(NUMBERS[self.count])
        if coloured and self.name == 'person':
            noun += f' in {self.colour}'
        elif coloured:
            words.append(self.colour)
        words.append(noun)
        if self.count == 1:
            number = 'an' if words[0][0] in 'aeiou' else 'a'
        return ' '.join([number] + words)

    def middle(self):
        return sum(box[0] + box[2] for box in self.boxes) / 2 / self.count


class Scene:
    """A scene made up from a seed: a ground, a sky and one to three groups of things.

    The captions are to be asked for before the picture: both go on with the same random numbers.

    Args:
        seed: a str; the same seed gives the same scene, captions and picture.
    """

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.ground = rng.choice(list(GROUNDS))
        self.sky = rng.choice(list(SKIES))
        below, above = rng.choice([(1, 0), (1, 1), (2, 0), (2, 0), (2, 1), (0, 1), (0, 2)])
        on_ground = GROUNDS[self.ground][1]
        drawn = rng.sample(on_ground, min(below, len(on_ground))) + rng.sample(SKY_KINDS, above)
        self.groups = []
        for name in [name for name in KINDS if name in drawn]:
            taken = [group.colour for group in self.groups]
            colour = rng.choice([free for free in KINDS[name].colours if free not in taken])
            count = rng.choice([1, 1, 1, 2, 3] if len(drawn) < 3 else [1, 1, 2])
            scale = rng.choice([.65, 1, 1.35]) if count == 1 else .8
            self.groups.append(Group(rng, name, colour, count, scale))
        for inSky in (False, True):
            self._place([group for group in self.groups if group.inSky == inSky])

    def _place(self, groups):
        """Gives every thing of these groups a box, side by side."""
        rng = self.rng
        rng.shuffle(groups)
        things = [group for group in groups for _ in range(group.count)]
        for number, group in enumerate(things):
            slot = WIDTH / len(things)
            group.scale = min(group.scale, .96 * slot / group.kind.width)
            width, height = group.kind.width * group.scale, group.kind.height * group.scale
            left = number * slot + rng.uniform(.02, .98) * (slot - width)
            if group.inSky:
                bottom = rng.uniform(height + 3, HORIZON + 8)
            else:
                bottom = rng.uniform(HORIZON + 34, HEIGHT - 4)
            group.boxes.append((left, bottom - height, left + width, bottom))

    def draw(self):
        """The picture, a PIL image of WIDTH × HEIGHT."""
        picture = Image.new('RGB', (WIDTH * FINER, HEIGHT * FINER))
        canvas = ImageDraw.Draw(picture)
        pen = Pen(canvas, (0, 0, WIDTH, HEIGHT))
        self._drawSky(pen)
        self._drawGround(pen)
        things = [(box, group) for group in self.groups for box in group.boxes]
        for box, group in sorted(things, key=lambda thing: thing[0][3]):  # the nearest last
            tone = self.rng.uniform(.88, 1.08)
            group.kind.draw(Pen(canvas, box), shaded(COLOURS[group.colour], tone))
        return picture.reduce(FINER)

    def _drawSky(self, pen):
        top, low, _, _, disc = SKIES[self.sky]
        for band in range(12):
            mixed = tuple(round(a + (b - a) * band / 11) for a, b in zip(top, low))
            pen.rectangle(mixed, 0, SKYLINE * band / 12, 1, SKYLINE * (band + 1) / 12)
        x = self.rng.uniform(25, WIDTH - 25)
        if disc is None:
            for shift in (0, 85, 170):
                middle, y = (x + shift) % WIDTH, 8 + shift % 3 * 9
                cloud = Pen(pen.canvas, (middle - 30, y, middle + 30, y + 22))
                for left, up in ((0, .3), (.22, 0), (.5, .25)):
                    cloud.ellipse((240, 243, 246), left, up, left + .5, up + .7)
            return
        y, colour = disc
        pen = Pen(pen.canvas, (x - 13, y - 13, x + 13, y + 13))
        pen.ellipse(colour, 0, 0, 1, 1)
        if self.sky == 'night':
            pen.ellipse(top, .3, -.1, 1.2, .85)

    def _drawGround(self, pen):
        rng = self.rng
        light = SKIES[self.sky][2]
        ground = shaded(GROUNDS[self.ground][0], light)
        pen.rectangle(ground, 0, SKYLINE, 1, 1)
        if self.ground == 'beach':
            pen.rectangle(shaded((70, 140, 200), light), 0, SKYLINE, 1, SKYLINE + .08)
        elif self.ground == 'street':
            for x in (.02, .28, .54, .8):
                pen.rectangle(shaded((245, 245, 240), light), x, .84, x + .14, .87)
        elif self.ground == 'snow':
            for _ in range(25):
                x, y = rng.random(), rng.random()
                pen.ellipse((250, 250, 255), x, y, x + .01, y + .013)
        else:
            length, tone = (.03, 1.18) if self.ground == 'lake' else (.008, .8)
            for _ in range(25):  # waves, or tufts of grass
                x, y = rng.random(), rng.uniform(SKYLINE + .03, .98)
                pen.line(shaded(ground, tone), .01, x, y, x + length, y - .01)

    def captions(self):
        """Five or six different sentences that are true of the picture."""
        rng = self.rng
        sentences = [lambda group: f'{group.phrase()} {self._where(group)}', self._doing,
                     lambda group: f'{self._thereIs(group)} {self._where(group)}',
                     lambda group: f'{self._where(group)} {self._thereIs(group)}']
        if len(self.groups) == 1:
            sentences += [self._alone]
        else:
            sentences += [self._together] * 3 + [self._related] * 2
        captions = []
        number = rng.choice([5, 5, 5, 6])
        while len(captions) < number:
            group = self.groups[0] if rng.random() < .7 else rng.choice(self.groups)
            caption = rng.choice(sentences)(group)
            if rng.random() < .25:
                caption += ' ' + rng.choice(SKIES[self.sky][3])
            caption = caption[0].upper() + caption[1:] + rng.choice(['.', '.', ''])
            if caption not in captions:
                captions.append(caption)
        return captions

    def _where(self, group):
        on_ground, in_air = GROUNDS[self.ground][2:]
        return self.rng.choice(in_air + ['in the sky'] if group.inSky else on_ground)

    def _doing(self, group):
        they = self.rng.choice(group.kind.verbs)
        it, doing = VERBS[they]
        phrase = group.phrase()
        verb = self.rng.choice([it if group.count == 1 else they, doing])
        return f'{phrase} {verb} {self._where(group)}'

    def _thereIs(self, group):
        phrase = group.phrase()
        return f'there is {phrase}' if phrase.startswith('a') else f'there are {phrase}'

    def _alone(self, group):
        third = int(3 * group.middle() / WIDTH)
        side = ['on the left', 'in the middle', 'on the right'][third]
        return f'{group.phrase()} {side} of the picture'

    def _together(self, group):
        others = [other for other in self.groups if other is not group]
        others = self.rng.sample(others, self.rng.randint(1, len(others)))
        joined = ' and '.join(part.phrase() for part in [group] + others)
        if len({part.inSky for part in self.groups}) == 1:
            joined += f' {self._where(group)}'
        return joined

    def _related(self, group):
        rng = self.rng
        other = rng.choice([other for other in self.groups if other is not group])
        if group.inSky != other.inSky:
            upper, lower = (group, other) if group.inSky else (other, group)
            return f'{upper.phrase()} {rng.choice(["above", "over"])} {lower.phrase()}'
        if rng.random() < .5:
            left, right = sorted((group, other), key=Group.middle)
            return f'{left.phrase()} on the left and {right.phrase()} on the right'
        return f'{group.phrase()} {rng.choice(["next to", "near", "beside"])} {other.phrase()}'
