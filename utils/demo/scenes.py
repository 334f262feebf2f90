"""Drawn scenes and true sentences about them, for the built-in demo data."""
import random

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 240, 180  # of an image, in pixels
FINER = 2                 # scenes are drawn this much larger and reduced, for smooth edges
HORIZON = 82              # y of the line between sky and ground

COLOURS = {'red': (214, 40, 40), 'orange': (245, 135, 20), 'yellow': (250, 215, 40), 'green': (40, 150, 60),
           'blue': (40, 90, 215), 'purple': (130, 55, 165), 'pink': (250, 140, 190), 'brown': (125, 75, 40),
           'black': (35, 35, 40), 'white': (245, 245, 245)}
PAINTS = ['red', 'orange', 'yellow', 'green', 'blue', 'purple', 'pink', 'black', 'white']
FURS = ['brown', 'black', 'white', 'orange']
DARK, SKIN, GLASS, WOOD = (45, 45, 50), (240, 195, 160), (190, 225, 245), (110, 70, 40)


def shaded(colour, factor):
    """The colour darker (factor < 1) or lighter."""
    return tuple(min(255, int(value * factor)) for value in colour)


class Pen:
    """Draws shapes whose coordinates run from 0 to 1 over a box of the image (left, top, right, bottom, in pixels)."""

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
        self.canvas.line(self.points(coordinates), fill=colour, width=max(1, round(thickness * self.height)))


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


class Kind:
    """What can be in a scene: how it is drawn (width and usual height in pixels), coloured and spoken of."""

    def __init__(self, draw, width, height, colours, nouns, verbs):
        self.draw = draw
        self.width = width
        self.height = height
        self.colours = colours
        self.nouns = nouns    # (one, several)
        self.verbs = verbs    # (it …, they …, …ing)


STANDS, SITS, FLIES = ('stands', 'stand', 'standing'), ('sits', 'sit', 'sitting'), ('flies', 'fly', 'flying')
# In the order in which the detector is sure of them.
KINDS = {
    'house': Kind(house, 62, 62, PAINTS, [('house', 'houses'), ('building', 'buildings')], [STANDS]),
    'bus': Kind(bus, 80, 40, PAINTS, [('bus', 'buses')], [('stops', 'stop', 'parked'), ('drives', 'drive', 'driving')]),
    'car': Kind(car, 62, 34, PAINTS, [('car', 'cars')], [('drives', 'drive', 'driving'), ('stops', 'stop', 'parked')]),
    'boat': Kind(boat, 54, 58, PAINTS, [('boat', 'boats'), ('sailboat', 'sailboats')],
                 [('sails', 'sail', 'sailing'), ('floats', 'float', 'floating')]),
    'person': Kind(person, 26, 56, PAINTS, [('person', 'people')], [STANDS, ('waits', 'wait', 'waiting')]),
    'dog': Kind(dog, 46, 36, FURS, [('dog', 'dogs')], [STANDS, ('runs', 'run', 'running')]),
    'cat': Kind(cat, 32, 38, FURS, [('cat', 'cats')], [SITS]),
    'umbrella': Kind(umbrella, 56, 54, PAINTS, [('umbrella', 'umbrellas'), ('parasol', 'parasols')], [STANDS]),
    'balloon': Kind(balloon, 34, 48, PAINTS, [('balloon', 'balloons'), ('hot air balloon', 'hot air balloons')],
                    [('floats', 'float', 'floating'), FLIES]),
    'kite': Kind(kite, 30, 44, PAINTS, [('kite', 'kites')], [FLIES]),
    'bird': Kind(bird, 38, 30, PAINTS, [('bird', 'birds')], [FLIES]),
    'tree': Kind(tree, 46, 66, ['green', 'orange', 'yellow', 'brown'], [('tree', 'trees')], [STANDS, ('grows', 'grow', 'growing')]),
    'flower': Kind(flower, 26, 40, PAINTS[:-2], [('flower', 'flowers')], [('grows', 'grow', 'growing')]),
}
SKY_KINDS = ['balloon', 'kite', 'bird']
# Backgrounds: colour of the ground, what stands on it, how its place is called on the ground and in the air above.
GROUNDS = {
    'meadow': ((120, 190, 90), ['house', 'tree', 'flower', 'person', 'dog', 'cat'],
               ['on the grass', 'in a green field', 'on a meadow'], ['over the grass', 'above a green field']),
    'beach': ((235, 210, 150), ['person', 'dog', 'umbrella', 'cat'],
              ['on the beach', 'on the sand', 'by the sea'], ['over the beach', 'above the sand']),
    'snow': ((228, 236, 244), ['house', 'tree', 'person', 'dog', 'car'],
             ['in the snow', 'on a snowy field'], ['over the snow', 'above a snowy field']),
    'street': ((150, 150, 155), ['car', 'bus', 'house', 'person', 'dog', 'cat'],
               ['on the street', 'on the road'], ['over the street', 'above the road']),
    'lake': ((80, 150, 200), ['boat'], ['on the lake', 'on the water'], ['over the lake', 'above the water']),
}
# Skies: colours at the top and at the horizon, how they are spoken of.
SKIES = {
    'sunny': ((95, 170, 235), (200, 228, 250), ['on a sunny day', 'in the sunshine', 'under the sun']),
    'cloudy': ((160, 175, 190), (205, 212, 220), ['under a cloudy sky', 'on a cloudy day', 'under the clouds']),
    'sunset': ((120, 90, 150), (255, 170, 90), ['at sunset', 'in the evening']),
    'night': ((12, 18, 50), (40, 50, 100), ['at night', 'under the moon', 'in the dark']),
}


class Group:
    """One to three things of the same kind and colour; `boxes` are theirs in the image, left, top, right, bottom."""

    def __init__(self, kind, colour, count, scale):
        self.kind = kind
        self.colour = colour
        self.count = count
        self.scale = scale
        self.boxes = []

    def phrase(self, rng):
        """Words for the group, something now and then left out: 'two red cars', 'a small bird', 'a person in blue'."""
        words = []
        if self.count == 1 and abs(self.scale - 1) > .25 and rng.random() < .5:
            words.append(rng.choice(['big', 'large'] if self.scale > 1 else ['small', 'little']))
        coloured = rng.random() < .85
        if coloured and self.kind != 'person':
            words.append(self.colour)
        words.append(rng.choice(KINDS[self.kind].nouns)[self.count > 1])
        if coloured and self.kind == 'person':
            words.append(f'in {self.colour}')
        if self.count == 1:
            return ('an ' if words[0][0] in 'aeiou' else 'a ') + ' '.join(words)
        number = {2: ['two', 'two', 'a pair of'], 3: ['three', 'three', 'a group of']}[self.count]
        return rng.choice(number) + ' ' + ' '.join(words)

    def middle(self):
        return sum(box[0] + box[2] for box in self.boxes) / 2 / self.count


class Scene:
    """A scene made up from a seed: background, sky and one to three groups of things.

    Args:
        seed: a str; the same seed gives the same scene, picture and captions.
    """

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.ground = rng.choice(list(GROUNDS))
        self.sky = rng.choice(list(SKIES))
        below, above = rng.choice([(1, 0), (1, 1), (2, 0), (2, 0), (2, 1), (0, 1), (0, 2)])
        kinds = rng.sample(GROUNDS[self.ground][1], min(below, len(GROUNDS[self.ground][1]))) + rng.sample(SKY_KINDS, above)
        kinds.sort(key=list(KINDS).index)
        colours = []
        self.groups = []
        for kind in kinds:
            colours.append(rng.choice([colour for colour in KINDS[kind].colours if colour not in colours]))
            count = rng.choice([1, 1, 1, 2, 3] if len(kinds) < 3 else [1, 1, 2])
            self.groups.append(Group(kind, colours[-1], count, rng.choice([.65, 1, 1.35]) if count == 1 else .8))
        for in_sky in (False, True):
            self._place([group for group in self.groups if (group.kind in SKY_KINDS) == in_sky], in_sky)

    def _place(self, groups, in_sky):
        """Gives every thing of these groups a box, side by side."""
        rng = self.rng
        rng.shuffle(groups)
        slot = WIDTH / max(1, sum(group.count for group in groups))
        number = 0
        for group in groups:
            kind = KINDS[group.kind]
            group.scale = min(group.scale, .96 * slot / kind.width)
            for _ in range(group.count):
                width, height = kind.width * group.scale, kind.height * group.scale
                left = number * slot + rng.uniform(.02, .98) * (slot - width)
                bottom = rng.uniform(height + 3, HORIZON + 8) if in_sky else rng.uniform(HORIZON + 34, HEIGHT - 4)
                group.boxes.append((left, bottom - height, left + width, bottom))
                number += 1

    def draw(self):
        """The picture, a PIL image of WIDTH × HEIGHT."""
        rng = self.rng
        picture = Image.new('RGB', (WIDTH * FINER, HEIGHT * FINER))
        canvas = ImageDraw.Draw(picture)
        pen = Pen(canvas, (0, 0, WIDTH, HEIGHT))
        horizon = HORIZON / HEIGHT
        top, low, _ = SKIES[self.sky]
        for band in range(12):
            mixed = tuple(round(a + (b - a) * band / 11) for a, b in zip(top, low))
            pen.rectangle(mixed, 0, horizon * band / 12, 1, horizon * (band + 1) / 12)
        self._draw_sky(canvas, rng.uniform(25, WIDTH - 25))
        light = .55 if self.sky == 'night' else .85 if self.sky == 'sunset' else 1
        ground = shaded(GROUNDS[self.ground][0], light)
        pen.rectangle(ground, 0, horizon, 1, 1)
        self._draw_ground(pen, horizon, ground, light)
        things = [(box, group) for group in self.groups for box in group.boxes]
        for box, group in sorted(things, key=lambda thing: thing[0][3]):  # the nearest last
            tone = rng.uniform(.88, 1.08)
            KINDS[group.kind].draw(Pen(canvas, box), shaded(COLOURS[group.colour], tone))
        return picture.reduce(FINER)

    def _draw_sky(self, canvas, x):
        if self.sky == 'cloudy':
            for shift in (0, 85, 170):
                cloud = Pen(canvas, ((x + shift) % WIDTH - 30, 8 + shift % 3 * 9, (x + shift) % WIDTH + 30, 30 + shift % 3 * 9))
                for left, up in ((0, .3), (.22, 0), (.5, .25)):
                    cloud.ellipse((240, 243, 246), left, up, left + .5, up + .7)
            return
        y, colour = {'sunny': (20, (255, 225, 70)), 'sunset': (HORIZON - 6, (255, 110, 50)),
                     'night': (22, (235, 235, 215))}[self.sky]
        disc = Pen(canvas, (x - 13, y - 13, x + 13, y + 13))
        disc.ellipse(colour, 0, 0, 1, 1)
        if self.sky == 'night':
            disc.ellipse(SKIES['night'][0], .3, -.1, 1.2, .85)

    def _draw_ground(self, pen, horizon, ground, light):
        rng = self.rng
        if self.ground == 'beach':
            pen.rectangle(shaded((70, 140, 200), light), 0, horizon, 1, horizon + .08)
        elif self.ground == 'street':
            for x in (.02, .28, .54, .8):
                pen.rectangle(shaded((245, 245, 240), light), x, .84, x + .14, .87)
        elif self.ground == 'snow':
            for _ in range(25):
                x, y = rng.random(), rng.random()
                pen.ellipse((250, 250, 255), x, y, x + .01, y + .013)
        else:
            for _ in range(25):  # tufts of grass, or waves
                x, y = rng.random(), rng.uniform(horizon + .03, .98)
                length = .03 if self.ground == 'lake' else .008
                pen.line(shaded(ground, 1.18 if self.ground == 'lake' else .8), .01, x, y, x + length, y - .01)

    def captions(self):
        """Five or six different sentences that are true of the picture."""
        rng = self.rng
        first = self.groups[0]
        templates = [self._seen, self._doing, self._there, self._placed] + (
            [self._alone] if len(self.groups) == 1 else [self._together] * 3 + [self._related] * 2)
        captions = []
        number = rng.choice([5, 5, 5, 6])
        while len(captions) < number:
            group = first if rng.random() < .7 else rng.choice(self.groups)
            caption = rng.choice(templates)(group)
            if rng.random() < .25:
                caption += ' ' + rng.choice(SKIES[self.sky][2])
            caption = caption[0].upper() + caption[1:] + rng.choice(['.', '.', ''])
            if caption not in captions:
                captions.append(caption)
        return captions

    def _where(self, group):
        on_ground, in_air = GROUNDS[self.ground][2:]
        return self.rng.choice(in_air + ['in the sky'] if group.kind in SKY_KINDS else on_ground)

    def _there_is(self, group):
        phrase = group.phrase(self.rng)
        return f'there {"is" if phrase.startswith("a") else "are"} {phrase}'

    def _side(self, group):
        third = int(3 * group.middle() / WIDTH)
        return ['on the left', 'in the middle', 'on the right'][third]

    def _seen(self, group):
        return f'{group.phrase(self.rng)} {self._where(group)}'

    def _doing(self, group):
        verb = self.rng.choice(KINDS[group.kind].verbs)
        return f'{group.phrase(self.rng)} {self.rng.choice([verb[group.count > 1], verb[2]])} {self._where(group)}'

    def _there(self, group):
        return f'{self._there_is(group)} {self._where(group)}'

    def _placed(self, group):
        return f'{self._where(group)} {self._there_is(group)}'

    def _alone(self, group):
        return f'{group.phrase(self.rng)} {self._side(group)} of the picture'

    def _together(self, group):
        others = [other for other in self.groups if other is not group]
        joined = ' and '.join(part.phrase(self.rng) for part in [group] + self.rng.sample(others, self.rng.randint(1, len(others))))
        grounded = [part for part in self.groups if part.kind not in SKY_KINDS]
        return joined + (f' {self._where(group)}' if len(grounded) in (0, len(self.groups)) else '')

    def _related(self, group):
        rng = self.rng
        other = rng.choice([other for other in self.groups if other is not group])
        in_sky = [part.kind in SKY_KINDS for part in (group, other)]
        if in_sky[0] != in_sky[1]:
            upper, lower = (group, other) if in_sky[0] else (other, group)
            return f'{upper.phrase(rng)} {rng.choice(["above", "over"])} {lower.phrase(rng)}'
        if rng.random() < .5:
            left, right = sorted((group, other), key=Group.middle)
            return f'{left.phrase(rng)} on the left and {right.phrase(rng)} on the right'
        return f'{group.phrase(rng)} {rng.choice(["next to", "near", "beside"])} {other.phrase(rng)}'
