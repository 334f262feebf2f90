"""Drawn scenes and true sentences about them, for the built-in demo data."""
import collections
import random
from dataclasses import dataclass

from PIL import Image, ImageColor, ImageDraw

WIDTH, HEIGHT = 240, 180  # of an image, in pixels
FINER = 2                 # scenes are drawn this much larger and reduced, for smooth edges
PICTURE = 0, 0, WIDTH, HEIGHT  # the box that is all of it
HORIZON = 82              # y of the line between sky and ground, in pixels
SKYLINE = HORIZON / HEIGHT  # the same from 0 to 1

COLOURS = {
    'red': '#d62828', 'orange': '#f58714', 'yellow': '#fad728', 'green': '#28963c',
    'blue': '#285ad7', 'purple': '#8237a5', 'pink': '#fa8cbe', 'brown': '#7d4b28',
    'black': '#232328', 'white': '#f5f5f5'}
PAINTS = [name for name in COLOURS if name != 'brown']
FURS = 'brown black white orange'.split()
MATERIALS = {'dark': '#2d2d32', 'skin': '#f0c3a0', 'glass': '#bee1f5', 'wood': '#6e4628'}


def shaded(colour, factor):
    """The colour, such as '#d62828' or (214, 40, 40), darker (factor < 1) or lighter: a tuple."""
    if isinstance(colour, str):
        colour = ImageColor.getrgb(colour)
    return tuple(min(255, int(value * factor)) for value in colour)


def drawShape(canvas, box, shape, colour, *numbers):
    """Draws a shape whose coordinates run from 0 to 1 over a box of the image.

    Args:
        canvas: the ImageDraw of an image that is FINER times as large.
        box: left, top, right, bottom, in pixels.
        shape, colour, numbers: as `DRAWINGS` has them: x and y in turn, after a line's thickness.
    """
    left, top, right, bottom = (FINER * value for value in box)
    width, height = right - left, bottom - top
    options = {'fill': colour}
    if shape == 'line':
        thickness, *numbers = numbers
        options['width'] = max(1, round(thickness * height))
    elif shape == 'pieslice':
        options.update(start=180, end=360)  # a dome
    points = [(left + x * width, top + y * height) for x, y in zip(numbers[::2], numbers[1::2])]
    getattr(canvas, shape)(points, **options)


def drawThing(canvas, box, name, colour):
    """Draws over a box what `DRAWINGS` has under this name; its own colour is a tuple."""
    middle = '#f0be28' if colour[1] < 190 else '#965a1e'
    for line in DRAWINGS[name].strip().splitlines():
        shape, paint, *numbers = line.split()
        if paint.startswith('own'):
            fill = shaded(colour, float(paint[4:] or 1))
        else:
            fill = {**MATERIALS, 'middle': middle}.get(paint, paint)
        drawShape(canvas, box, shape, fill, *map(float, numbers))


# How things, clouds and roads are drawn, a shape a line: its colour and its coordinates, x and y in
# turn, from 0 to 1 over a box; a line's thickness comes first. `own` is the thing's own colour,
# `own*.8` a darker one, `middle` one that can be told from it.
DRAWINGS = {
    'house': '''
        rectangle own .1 .42 .9 1
        polygon #783c32 0 .45 .5 0 1 .45
        rectangle wood .42 .65 .58 1
        rectangle dark .18 .53 .35 .74
        rectangle glass .2 .55 .33 .72
        rectangle dark .66 .53 .83 .74
        rectangle glass .68 .55 .81 .72''',
    'bus': '''
        rectangle own 0 0 1 .86
        rectangle glass .05 .14 .19 .46
        rectangle glass .24 .14 .38 .46
        rectangle glass .43 .14 .57 .46
        rectangle glass .62 .14 .76 .46
        rectangle glass .81 .14 .95 .46
        ellipse dark .14 .7 .32 1
        ellipse dark .66 .7 .84 1''',
    'car': '''
        polygon own .18 .5 .3 .08 .7 .08 .84 .5
        polygon glass .25 .46 .34 .16 .48 .16 .48 .46
        polygon glass .52 .46 .52 .16 .66 .16 .76 .46
        rectangle own .02 .46 .98 .8
        ellipse dark .14 .58 .36 1
        ellipse #aaaaaa .21 .71 .29 .87
        ellipse dark .64 .58 .86 1
        ellipse #aaaaaa .71 .71 .79 .87''',
    'boat': '''
        rectangle wood .48 0 .52 .74
        polygon #fafaf5 .55 .05 .55 .66 .95 .66
        polygon #e1e1dc .45 .12 .45 .66 .12 .66
        polygon own 0 .72 1 .72 .82 1 .18 1''',
    'person': '''
        line dark .09 .38 .6 .34 .98
        line dark .09 .62 .6 .66 .98
        line skin .06 .28 .32 .04 .56
        line skin .06 .72 .32 .96 .56
        polygon own .22 .26 .78 .26 .74 .64 .26 .64
        ellipse skin .3 0 .7 .24
        polygon #50321e .3 .1 .36 0 .64 0 .7 .1''',
    'dog': '''
        rectangle own*.85 .16 .6 .24 1
        rectangle own*.85 .28 .6 .36 1
        rectangle own*.85 .58 .6 .66 1
        rectangle own*.85 .7 .6 .78 1
        line own .1 .14 .45 .02 .12
        ellipse own .1 .32 .82 .75
        ellipse own .64 .06 .94 .5
        rectangle own .84 .24 1 .42
        ellipse own*.6 .64 .08 .74 .42
        ellipse dark .95 .22 1 .31
        ellipse #fafafa .8 .15 .86 .25
        ellipse black .82 .17 .86 .24''',
    'cat': '''
        line own .08 .8 .9 .98 .75 .94 .5
        ellipse own .15 .4 .85 1
        polygon own .2 .3 .22 0 .48 .16
        polygon own .8 .3 .78 0 .52 .16
        ellipse own .18 .1 .82 .52
        ellipse #b4dc5a .32 .24 .42 .34
        ellipse #b4dc5a .58 .24 .68 .34
        polygon #e67882 .45 .37 .55 .37 .5 .42''',
    'umbrella': '''
        rectangle #e6e6e1 .47 .1 .53 1
        pieslice own 0 0 1 1
        polygon own*.75 .22 .5 .5 .02 .38 .5
        polygon own*.75 .62 .5 .5 .02 .78 .5''',
    'balloon': '''
        line dark .015 .3 .6 .42 .86
        line dark .015 .7 .6 .58 .86
        ellipse own 0 0 1 .72
        ellipse own*.8 .3 0 .7 .72
        rectangle wood .38 .84 .62 1''',
    'kite': '''
        line dark .02 .5 .6 .3 .8 .45 1
        polygon own .5 0 1 .3 .5 .72 0 .3
        polygon own*.75 .5 0 1 .3 .5 .3
        polygon own*.75 .5 .72 0 .3 .5 .3''',
    'bird': '''
        polygon own .34 .5 .06 .02 .62 .42
        polygon own*.8 .46 .5 .62 0 .7 .5
        ellipse own .2 .4 .82 .8
        ellipse own .7 .3 .94 .64
        polygon own .28 .55 0 .5 .02 .8
        polygon #f0aa1e .92 .42 1 .5 .92 .54
        ellipse black .82 .4 .87 .48''',
    'tree': '''
        rectangle wood .42 .55 .58 1
        ellipse own*.85 0 .2 .6 .62
        ellipse own*.93 .4 .2 1 .62
        ellipse own*.89 .2 0 .8 .42
        ellipse own*.89 .2 .3 .8 .72''',
    'flower': '''
        line #328232 .05 .5 .4 .5 1
        polygon #3c963c .5 .85 .85 .62 .6 .9
        ellipse own .3 0 .7 .24
        ellipse own .55 .12 .95 .36
        ellipse own .47 .34 .87 .58
        ellipse own .13 .34 .53 .58
        ellipse own .05 .12 .45 .36
        ellipse middle .34 .19 .66 .4''',
    'cloud': '''
        ellipse own 0 .3 .5 1
        ellipse own .22 0 .72 .7
        ellipse own .5 .25 1 .95''',
    'road marks': '''
        rectangle own .02 .84 .16 .87
        rectangle own .28 .84 .42 .87
        rectangle own .54 .84 .68 .87
        rectangle own .8 .84 .94 .87''',
}
# What can be in a scene: its usual size in pixels, plural verbs, its possible colours, and other
# nouns for it than its name.
Kind = collections.namedtuple('Kind', 'width height verbs colours synonyms', defaults=[PAINTS, ()])
# plurals of nouns, singulars of verbs; the others get an s
WITH_S = {'bus': 'buses', 'person': 'people', 'fly': 'flies'}
NUMBERS = {2: ['two', 'two', 'a pair of'], 3: ['three', 'three', 'a group of']}
# participles of verbs; the others get an ing
PARTICIPLES = {'drive': 'driving', 'stop': 'parked', 'sit': 'sitting', 'run': 'running'}
# The detector is surest of the first.
KINDS = {
    'house': Kind(62, 62, 'stand', synonyms=['building']),
    'bus': Kind(80, 40, 'stop drive'),
    'car': Kind(62, 34, 'drive stop'),
    'boat': Kind(54, 58, 'sail float', synonyms=['sailboat']),
    'person': Kind(26, 56, 'stand wait'),
    'dog': Kind(46, 36, 'stand run', FURS),
    'cat': Kind(32, 38, 'sit', FURS),
    'umbrella': Kind(56, 54, 'stand', synonyms=['parasol']),
    'balloon': Kind(34, 48, 'float fly', synonyms=['hot air balloon']),
    'kite': Kind(30, 44, 'fly'),
    'bird': Kind(38, 30, 'fly'),
    'tree': Kind(46, 66, 'stand grow', 'green orange yellow brown'.split()),
    'flower': Kind(26, 40, 'grow', PAINTS[:-2]),
}
SKY_KINDS = 'balloon kite bird'.split()
# Grounds: colour, what stands there, words for places on it, words for places in the air above.
GROUNDS = {
    'meadow': ('#78be5a', 'house tree flower person dog cat',
               'on the grass, in a green field, on a meadow',
               'over the grass, above a green field'),
    'beach': ('#ebd296', 'person dog umbrella cat',
              'on the beach, on the sand, by the sea', 'over the beach, above the sand'),
    'snow': ('#e4ecf4', 'house tree person dog car',
             'in the snow, on a snowy field', 'over the snow, above a snowy field'),
    'street': ('#96969b', 'car bus house person dog cat',
               'on the street, on the road', 'over the street, above the road'),
    'lake': ('#5096c8', 'boat', 'on the lake, on the water', 'over the lake, above the water'),
}
# Skies: colours at the top and at the horizon, brightness of the ground, words for them, and the
# y and colour of the sun or moon.
SKIES = {
    'sunny': ('#5faaeb', '#c8e4fa', 1, 'on a sunny day, in the sunshine, under the sun',
              (20, '#ffe146')),
    'cloudy': ('#a0afbe', '#cdd4dc', 1, 'under a cloudy sky, on a cloudy day, under the clouds',
               None),
    'sunset': ('#785a96', '#ffaa5a', .85, 'at sunset, in the evening', (HORIZON - 6, '#ff6e32')),
    'night': ('#0c1232', '#283264', .55, 'at night, under the moon, in the dark', (22, '#ebebd7')),
}


@dataclass
class Group:
    """One to three things of the same kind and colour.

    Attributes:
        name: a key of KINDS, whose value is `kind`.
        boxes: a (left, top, right, bottom) for each thing, in pixels.
    """

    rng: random.Random
    name: str
    colour: str
    count: int
    scale: float

    def __post_init__(self):
        self.kind = KINDS[self.name]
        self.inSky = self.name in SKY_KINDS
        self.boxes = []

    def phrase(self):
        """Words for the group, such as 'two red cars', 'a small bird' or 'a person in blue'."""
        rng, size = self.rng, ''
        if self.count == 1 and abs(self.scale - 1) > .25 and rng.random() < .5:
            size = rng.choice(['big ', 'large '] if self.scale > 1 else ['small ', 'little '])
        coloured = rng.random() < .85
        words = rng.choice([self.name, *self.kind.synonyms])
        if self.count > 1:
            words = WITH_S.get(words, f'{words}s')
        if coloured and self.name == 'person':
            words = f'{words} in {self.colour}'
        elif coloured:
            words = f'{self.colour} {words}'
        if self.count > 1:
            return f'{rng.choice(NUMBERS[self.count])} {words}'
        words = size + words
        return f'an {words}' if words[0] in 'aeiou' else f'a {words}'

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
        on_ground = GROUNDS[self.ground][1].split()
        drawn = rng.sample(on_ground, min(below, len(on_ground))) + rng.sample(SKY_KINDS, above)
        self.groups = []
        for name, kind in KINDS.items():
            if name in drawn:
                taken = [group.colour for group in self.groups]
                colour = rng.choice([free for free in kind.colours if free not in taken])
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
        self._drawSky(canvas)
        self._drawGround(canvas)
        things = [(box, group) for group in self.groups for box in group.boxes]
        for box, group in sorted(things, key=lambda thing: thing[0][3]):  # the nearest last
            tone = self.rng.uniform(.88, 1.08)
            drawThing(canvas, box, group.name, shaded(COLOURS[group.colour], tone))
        return picture.reduce(FINER)

    def _drawSky(self, canvas):
        top, low, _, _, disc = SKIES[self.sky]
        sky = list(zip(ImageColor.getrgb(top), ImageColor.getrgb(low)))
        for band in range(12):  # each over the lower part of the one before
            mixed = tuple(round(a + (b - a) * band / 11) for a, b in sky)
            drawShape(canvas, PICTURE, 'rectangle', mixed, 0, SKYLINE * band / 12, 1, SKYLINE)
        x = self.rng.uniform(25, WIDTH - 25)
        if disc is None:
            for shift in (0, 85, 170):
                middle, y = (x + shift) % WIDTH, 8 + shift % 3 * 9
                box = middle - 30, y, middle + 30, y + 22
                drawThing(canvas, box, 'cloud', shaded('#f0f3f6', 1))
            return
        y, colour = disc
        box = x - 13, y - 13, x + 13, y + 13
        drawShape(canvas, box, 'ellipse', colour, 0, 0, 1, 1)
        if self.sky == 'night':
            drawShape(canvas, box, 'ellipse', top, .3, -.1, 1.2, .85)

    def _drawGround(self, canvas):
        rng = self.rng
        light = SKIES[self.sky][2]
        ground = shaded(GROUNDS[self.ground][0], light)
        drawShape(canvas, PICTURE, 'rectangle', ground, 0, SKYLINE, 1, 1)
        if self.ground == 'beach':
            sea = shaded('#468cc8', light)
            drawShape(canvas, PICTURE, 'rectangle', sea, 0, SKYLINE, 1, SKYLINE + .08)
        elif self.ground == 'street':
            drawThing(canvas, PICTURE, 'road marks', shaded('#f5f5f0', light))
        elif self.ground == 'snow':
            for _ in range(25):
                x, y = rng.random(), rng.random()
                drawShape(canvas, PICTURE, 'ellipse', '#fafaff', x, y, x + .01, y + .013)
        else:
            length, tone = (.03, 1.18) if self.ground == 'lake' else (.008, .8)
            for _ in range(25):  # waves, or tufts of grass
                x, y = rng.random(), rng.uniform(SKYLINE + .03, .98)
                stroke = .01, x, y, x + length, y - .01
                drawShape(canvas, PICTURE, 'line', shaded(ground, tone), *stroke)

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
                caption += ' ' + rng.choice(SKIES[self.sky][3].split(', '))
            caption = caption.capitalize() + rng.choice(['.', '.', ''])
            if caption not in captions:
                captions.append(caption)
        return captions

    def _where(self, group):
        on_ground, in_air = GROUNDS[self.ground][2:]
        places = f'{in_air}, in the sky' if group.inSky else on_ground
        return self.rng.choice(places.split(', '))

    def _doing(self, group):
        they = self.rng.choice(group.kind.verbs.split())
        phrase = group.phrase()
        verb = they if group.count > 1 else WITH_S.get(they, f'{they}s')
        verb = self.rng.choice([verb, PARTICIPLES.get(they, f'{they}ing')])
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
