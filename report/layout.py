"""A4 pages that headings, paragraphs, tables and figures fill from top to bottom. Lengths are in points."""
import contextlib

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.pages.textLines import textWidth, wrapped

WIDTH, HEIGHT = 595.3, 841.9
LEFT, RIGHT, TOP, BOTTOM = 62, 62, 60, 64
COLUMN = WIDTH - LEFT - RIGHT
STYLE = {'font.family': 'STIXGeneral', 'mathtext.fontset': 'stix', 'font.size': 9, 'axes.labelsize': 9,
         'xtick.labelsize': 8.5, 'ytick.labelsize': 8.5, 'legend.fontsize': 8.5, 'pdf.fonttype': 42,  # text stays text
         'axes.linewidth': .6, 'grid.linewidth': .5, 'lines.linewidth': 1.2}
SIZE, NOTE, LEADING = 10, 9, 1.3
GREY = '.35'


@contextlib.contextmanager
def typography():
    """While this is open, figures have the report's fonts and line widths."""
    with matplotlib.rc_context(STYLE):
        yield


class Document:
    """Pages of a PDF. `y` is how far the page is filled, from the top.

    Args:
        file: path or binary file to write to.
        title, author: what the PDF says about itself; the author also stands at the foot of each page.
    """

    def __init__(self, file, title, author):
        # without the date, the same runs give the same file
        self.pdf = PdfPages(file, metadata={'Title': title, 'Author': author, 'CreationDate': None})
        self.foot = f'{title} · {author}'
        self.page = None
        self.number = 0
        self.numbered = {'Figure': 0, 'Table': 0}
        self.newPage()

    def close(self):
        """Writes the last page and ends the file."""
        self._finish()
        self.pdf.close()

    def newPage(self):
        """Begins a page."""
        self._finish()
        self.page = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        self.number += 1
        self.y = TOP
        self._text(LEFT, HEIGHT - 34, self.foot, 8, color=GREY)
        self._text(WIDTH - RIGHT, HEIGHT - 34, str(self.number), 8, color=GREY, ha='right')

    def _finish(self):
        if self.page is not None:
            self.pdf.savefig(self.page)

    def need(self, height):
        """Begins a new page where less than `height` is left of this one."""
        if self.y + height > HEIGHT - BOTTOM:
            self.newPage()

    def skip(self, height):
        """Leaves some room."""
        self.y += height

    def _text(self, x, y, text, size=SIZE, **options):
        self.page.text(x / WIDTH, 1 - y / HEIGHT, text, size=size, va='baseline', parse_math=False, **options)

    def lines(self, lines, x=LEFT, size=SIZE, **options):
        """Lines one below the other, on this page."""
        for line in lines:
            self.y += size * LEADING
            self._text(x, self.y - size * (LEADING - 1), line, size, **options)

    def heading(self, text, size=14, keep=60):
        """A heading, together with the `keep` points that follow it."""
        self.need(size * 2 + keep)
        self.skip(size * .5 if self.y > TOP else 0)
        self.lines([text], size=size, weight='bold')
        self.skip(4)

    def paragraph(self, text, size=SIZE, **options):
        """Text across the page; options are matplotlib's."""
        lines = wrapped(text, COLUMN, size)
        self.need(min(len(lines), 3) * size * LEADING)
        for line in lines:
            self.need(size * LEADING)
            self.lines([line], LEFT, size, **options)
        self.skip(5)

    def equations(self, rows, size=11):
        """Equations in mathtext, one a line."""
        for row in rows:
            self.need(size * 1.75)
            self.y += size * 1.75
            self.page.text((LEFT + 24) / WIDTH, 1 - (self.y - 4) / HEIGHT, row, size=size, va='baseline')
        self.skip(8)

    def caption(self, kind, text):
        """What stands below a 'Figure' or above a 'Table', numbered."""
        self.numbered[kind] += 1
        self.paragraph(f'{kind} {self.numbered[kind]}. {text}', NOTE, color='.15')

    def table(self, text, rows, size=NOTE, header=True):
        """A numbered table, on one page.

        Args:
            text: its caption.
            rows: lists of str, as many in each. The first column and columns of words are aligned left, numbers right. A last
                column of words is wrapped where it is too wide; a table of numbers gets smaller letters. A line break divides
                a cell of the header.
            size: of the letters.
            header: whether the first row is one.
        """
        weights = ['bold' if header and index == 0 else 'normal' for index in range(len(rows))]
        columns = list(zip(*rows))
        words = [number == 0 or any(map(_hasLetters, column[header:])) for number, column in enumerate(columns)]
        gaps = len(columns) - 1
        while True:
            widths = [max(textWidth(line, size, weight) for cell, weight in zip(column, weights) for line in cell.split('\n'))
                      for column in columns]
            if words[-1] or sum(widths) + 7 * gaps <= COLUMN:
                break
            size -= .25
        widths[-1] = min(widths[-1], COLUMN - sum(widths[:-1]) - 10 * gaps) if words[-1] else widths[-1]
        gap = min(24, (COLUMN - sum(widths)) / max(gaps, 1))
        lefts = [LEFT + sum(widths[:number]) + gap * number for number in range(len(widths))]
        end = lefts[-1] + widths[-1]
        cells = [[wrapped(cell, width + 1, size, weight) for cell, width in zip(row, widths)]
                 for row, weight in zip(rows, weights)]
        heights = [max(map(len, row)) * size * LEADING + 4 for row in cells]
        caption = len(wrapped(f'Table 10. {text}', COLUMN, NOTE)) * NOTE * LEADING + 5
        self.need(caption + sum(heights))
        self.caption('Table', text)
        self._rule(end, .8)
        for index, (row, weight, height) in enumerate(zip(cells, weights, heights)):
            bottom = self.y + height
            for lines, left, width, of_words in zip(row, lefts, widths, words):
                empty = max(map(len, row)) - len(lines) if weight == 'bold' else 0  # headers stand on the rule
                self.y = bottom - height + 2 + empty * size * LEADING
                self.lines(lines, left + width * (not of_words), size, ha='left' if of_words else 'right', weight=weight)
            self.y = bottom
            if header and index == 0:
                self._rule(end, .4)
        self._rule(end, .8)
        self.skip(10)

    def _rule(self, end, width):
        y = 1 - self.y / HEIGHT
        self.page.add_artist(Line2D([LEFT / WIDTH, end / WIDTH], [y, y], color='black', linewidth=width))

    def axes(self, x, y, width, height):
        """Axes on this page, x from the page's left, y from its top, without changing how far it is filled."""
        return self.page.add_axes([x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT])

    def plots(self, height, number=1, right=0):
        """A row of axes across the page, with room for their ticks and labels left and below, and `right`."""
        self.need(height + 24)  # and a line of caption
        gap = 48
        width = (COLUMN - gap * (number - 1) - 34 - right) / number
        axes = [self.axes(LEFT + 34 + index * (width + gap), self.y + 6, width, height - 42) for index in range(number)]
        self.skip(height)
        return axes


def _hasLetters(cell):
    return any(letter.isalpha() for letter in cell)
