"""What the report is made of: headings, text, tables and figures, on A4 pages of reportlab."""
import io
import os
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.figure import Figure
from reportlab.lib.colors import grey
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Image,
    KeepTogether,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

REGULAR, BOLD = 'STIXGeneral', 'STIXGeneralBol'  # fonts that matplotlib brings along
MARGIN = 54  # of a page, in points like all lengths here
COLUMN, TALLEST = A4[0] - 2 * MARGIN, A4[1] - 4 * MARGIN  # of a figure, with its caption
DPI = 200
PLOTS = {'font.family': 'STIXGeneral', 'mathtext.fontset': 'stix', 'font.size': 9,
         'axes.labelsize': 9, 'legend.fontsize': 8.5}

TEXT = ParagraphStyle('text', fontName=REGULAR, fontSize=10, leading=13, spaceAfter=6)
NOTE = ParagraphStyle('note', TEXT, fontSize=9, leading=11.7, spaceAfter=3)
STRONG = ParagraphStyle('strong', TEXT, fontName=BOLD, fontSize=11.5, leading=14, spaceAfter=2)
HEADING = ParagraphStyle('heading', STRONG, fontSize=14, leading=18, spaceBefore=8, spaceAfter=4,
                         keepWithNext=1)
TITLE = ParagraphStyle('title', STRONG, fontSize=19, leading=30)

for font in (REGULAR, BOLD):
    registerFont(TTFont(font, os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf',
                                           f'{font}.ttf')))


def paragraph(text, style=TEXT):
    """Text as it is: no letter in it is markup."""
    return Paragraph(escape(text), style)


def newFigure(height):
    """A figure of matplotlib, as wide as the text and so many inches high."""
    return Figure(figsize=(COLUMN / 72, height), layout='constrained')


def drawnFigure(figure):
    """A figure of matplotlib, as wide as the text."""
    png = io.BytesIO()
    figure.savefig(png, dpi=DPI)
    return Image(png, COLUMN, TALLEST, kind='proportional')


class Story:
    """The report from its first page to its last, added to from top to bottom."""

    def __init__(self):
        self.flowables = []
        self.numbered = {'Figure': 0, 'Table': 0}

    def add(self, *flowables):
        """Adds flowables that stay on one page."""
        self.flowables.append(KeepTogether(list(flowables)))

    def text(self, text, style=TEXT):
        """Adds a paragraph."""
        self.flowables.append(paragraph(text, style))

    def newPage(self, heading):
        """Begins a page."""
        self.flowables.append(PageBreak())
        self.text(heading, HEADING)

    def equations(self, lines):
        """Adds equations in matplotlib's mathtext, one a line."""
        figure = newFigure(.28 * len(lines))
        for number, line in enumerate(lines):
            figure.text(.05, 1 - (number + .7) / len(lines), line, size=11)
        self.add(drawnFigure(figure), Spacer(0, 8))

    def figure(self, caption, figure):
        """Adds a figure of matplotlib with its numbered caption below."""
        self.add(drawnFigure(figure), self._caption('Figure', caption))

    def table(self, caption, rows, leftColumns=1):
        """Adds a table with its numbered caption above.

        Args:
            caption: str.
            rows: lists of str, as many in each; the first row is the header.
            leftColumns: how many columns are aligned left; those after them are aligned right.
        """
        style = [('FONT', (0, 0), (-1, -1), REGULAR, 9), ('FONT', (0, 0), (-1, 0), BOLD, 9),
                 ('ALIGN', (0, 0), (-1, -1), 'RIGHT'),
                 ('ALIGN', (0, 0), (leftColumns - 1, -1), 'LEFT'),
                 ('VALIGN', (0, 0), (-1, -1), 'BOTTOM'), ('TOPPADDING', (0, 0), (-1, -1), 1),
                 ('LINEBELOW', (0, 0), (-1, -1), .4, grey)]
        self.add(self._caption('Table', caption),
                 Table(rows, style=style, hAlign='LEFT', spaceAfter=12))

    def _caption(self, kind, text):
        self.numbered[kind] += 1
        return paragraph(f'{kind} {self.numbered[kind]}. {text}', NOTE)

    def pdf(self, title, author):
        """The pages as a PDF, in bytes; the same story gives the same bytes."""
        def foot(canvas, document):
            canvas.setFont(REGULAR, 8)
            canvas.drawString(MARGIN, 34, f'{title} · {author} · {document.page}')

        file = io.BytesIO()
        document = SimpleDocTemplate(file, pagesize=A4, leftMargin=MARGIN - 6,
                                     rightMargin=MARGIN - 6, topMargin=50, bottomMargin=50,
                                     title=title, author=author, invariant=1)
        document.build(self.flowables, onFirstPage=foot, onLaterPages=foot)
        return file.getvalue()
