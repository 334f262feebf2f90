"""The parts of the report, headings, text, tables and figures, on A4 pages of reportlab."""
import io
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.figure import Figure
from reportlab.lib.colors import grey
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Image, KeepTogether, PageBreak, Paragraph, SimpleDocTemplate, Table

FONTS = REGULAR, BOLD = 'STIXGeneral', 'STIXGeneralBol'  # matplotlib brings them along
MARGIN = 54  # of a page, in points like all lengths here
COLUMN, TALLEST = A4[0] - 2 * MARGIN, A4[1] - 4 * MARGIN  # a figure's width and most height
DPI = 200
PLOTS = {'font.family': REGULAR, 'mathtext.fontset': 'stix', 'font.size': 9}


def style(size, font=REGULAR, **options):
    """The style of a paragraph."""
    return ParagraphStyle('', fontName=font, fontSize=size, leading=1.3 * size, spaceAfter=5,
                          **options)


TEXT, NOTE, STRONG = style(10), style(9), style(11.5, BOLD)
TITLE, HEADING = style(19, BOLD), style(14, BOLD, spaceBefore=10, keepWithNext=1)

for name in FONTS:
    registerFont(TTFont(name, f'{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf'))


def paragraph(text, style=TEXT):
    """A paragraph of the text as it is: no letter in it is markup."""
    return Paragraph(escape(text), style)


def newFigure(height):
    """A figure of matplotlib, as wide as the text and so many inches high."""
    return Figure(figsize=(COLUMN / 72, height), layout='constrained')


def drawn(figure):
    """A figure of matplotlib as a flowable, as wide as the text if it isn't too high then."""
    png = io.BytesIO()
    figure.savefig(png, dpi=DPI)
    return Image(png, COLUMN, TALLEST, kind='proportional')


class Story:
    """The report's flowables, from its first page to its last."""

    def __init__(self):
        self.flowables = []
        self.numbered = {'Figure': 0, 'Table': 0}

    def text(self, text, style=TEXT):
        """Adds a paragraph."""
        self.flowables.append(paragraph(text, style))

    def newPage(self, heading):
        """Begins a page."""
        self.flowables.append(PageBreak())
        self.text(heading, HEADING)

    def equations(self, lines):
        """Adds equations in matplotlib's mathtext, one a line."""
        figure = newFigure(.28 * len(lines) + .1)
        figure.text(.05, .5, '\n'.join(lines), size=11, va='center', linespacing=1.8)
        self.flowables.append(drawn(figure))

    def figure(self, caption, figure):
        """Adds a figure of matplotlib with its numbered caption below."""
        self.flowables.append(KeepTogether([drawn(figure), self._caption('Figure', caption)]))

    def table(self, caption, rows, leftColumns=1):
        """Adds a table with its numbered caption above.

        Args:
            caption: str.
            rows: lists of str, as many in each; the first row is the header.
            leftColumns: how many columns are aligned left; those after them are aligned right.
        """
        whole = (0, 0), (-1, -1)
        style = [('FONT', *whole, REGULAR, 9), ('FONT', (0, 0), (-1, 0), BOLD, 9),
                 ('ALIGN', *whole, 'RIGHT'), ('ALIGN', (0, 0), (leftColumns - 1, -1), 'LEFT'),
                 ('TOPPADDING', *whole, 1), ('RIGHTPADDING', *whole, 4),
                 ('LINEBELOW', *whole, .4, grey)]
        table = Table(rows, style=style, hAlign='LEFT', spaceAfter=10)
        self.flowables.append(KeepTogether([self._caption('Table', caption), table]))

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

        pdf = io.BytesIO()
        side = MARGIN - 6  # reportlab leaves another 6 points
        document = SimpleDocTemplate(pdf, pagesize=A4, leftMargin=side, rightMargin=side,
                                     topMargin=MARGIN, bottomMargin=MARGIN, title=title,
                                     author=author, invariant=1)
        document.build(self.flowables, onFirstPage=foot, onLaterPages=foot)
        return pdf.getvalue()
