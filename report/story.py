"""What the report is made of: headings, text, tables and figures, on A4 pages of reportlab."""
import io
import os
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
MARGIN = 62  # of a page, in points like all lengths here
COLUMN = A4[0] - 2 * MARGIN
DPI = 220
PLOTS = {'font.family': 'STIXGeneral', 'mathtext.fontset': 'stix', 'font.size': 9,
         'axes.labelsize': 9, 'legend.fontsize': 8.5}

TEXT = ParagraphStyle('text', fontName=REGULAR, fontSize=10, leading=13, spaceAfter=6)
NOTE = ParagraphStyle('note', TEXT, fontSize=9, leading=11.7)
CELL = ParagraphStyle('cell', NOTE, spaceAfter=0)
STRONG = ParagraphStyle('strong', TEXT, fontName=BOLD, fontSize=11.5, leading=14, spaceAfter=2)
HEADING = ParagraphStyle('heading', STRONG, fontSize=14, leading=18, spaceBefore=8, spaceAfter=4,
                         keepWithNext=1)
TITLE = ParagraphStyle('title', STRONG, fontSize=19, leading=25)

for font in (REGULAR, BOLD):
    registerFont(TTFont(font, os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf',
                                           f'{font}.ttf')))


def paragraph(text, style=TEXT):
    """Text as it is: no letter in it is markup."""
    return Paragraph(escape(text), style)


def drawnFigure(figure):
    """A figure of matplotlib, whose inches are those on the page."""
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    with matplotlib.rc_context(PLOTS):
        figure.savefig(png, dpi=DPI)
    width, height = figure.get_size_inches() * 72
    return Image(png, width, height)


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

    def heading(self, text):
        """Adds a heading, which stays with what follows."""
        self.text(text, HEADING)

    def newPage(self, heading):
        """Begins a page."""
        self.flowables.append(PageBreak())
        self.heading(heading)

    def equations(self, lines):
        """Adds equations in matplotlib's mathtext, one a line."""
        height = .28 * len(lines)
        with matplotlib.rc_context(PLOTS):
            figure = Figure(figsize=(COLUMN / 72, height))
            for number, line in enumerate(lines):
                figure.text(.05, 1 - (number + .7) / len(lines), line, size=11)
        self.add(drawnFigure(figure), Spacer(0, 8))

    def figure(self, caption, *flowables):
        """Adds a figure with its numbered caption below."""
        self.add(*flowables, self._caption('Figure', caption))

    def table(self, caption, rows, leftColumns=(0,), header=True, widths=None):
        """Adds a table with its numbered caption above.

        Args:
            caption: str.
            rows: lists of str, as many in each. Words in the last column are wrapped.
            leftColumns: the columns to align left; the others are aligned right.
            header: whether the first row is one.
            widths: of the columns, as reportlab takes them.
        """
        style = [('FONT', (0, 0), (-1, -1), REGULAR, 9, 11.7), ('ALIGN', (0, 0), (-1, -1), 'RIGHT'),
                 ('VALIGN', (0, 0), (-1, -1), 'TOP'),
                 ('LINEABOVE', (0, 0), (-1, 0), .8, 'black'),
                 ('LINEBELOW', (0, -1), (-1, -1), .8, 'black'),
                 ('TOPPADDING', (0, 0), (-1, -1), 1), ('BOTTOMPADDING', (0, 0), (-1, -1), 4),
                 ('LEFTPADDING', (0, 0), (0, -1), 0), ('RIGHTPADDING', (-1, 0), (-1, -1), 0)]
        style += [('ALIGN', (column, 0), (column, -1), 'LEFT') for column in leftColumns]
        if header:
            style += [('FONT', (0, 0), (-1, 0), BOLD, 9, 11.7), ('VALIGN', (0, 0), (-1, 0), 'BOTTOM'),
                      ('LINEBELOW', (0, 0), (-1, 0), .4, 'black')]
        self.add(self._caption('Table', caption),
                 Table(rows, widths, style=style, hAlign='LEFT', spaceAfter=10))

    def _caption(self, kind, text):
        self.numbered[kind] += 1
        return paragraph(f'{kind} {self.numbered[kind]}. {text}', NOTE)

    def pdf(self, title, author):
        """The pages as a PDF, in bytes; the same story gives the same bytes."""
        def foot(canvas, document):
            canvas.setFont(REGULAR, 8)
            canvas.setFillColor(grey)
            canvas.drawString(MARGIN, 34, f'{title} · {author}')
            canvas.drawRightString(A4[0] - MARGIN, 34, str(document.page))

        file = io.BytesIO()
        document = SimpleDocTemplate(file, pagesize=A4, leftMargin=MARGIN - 6,
                                     rightMargin=MARGIN - 6, topMargin=54, bottomMargin=58,
                                     title=title, author=author, invariant=1)
        document.build(self.flowables, onFirstPage=foot, onLaterPages=foot)
        return file.getvalue()
