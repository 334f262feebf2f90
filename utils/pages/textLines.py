"""Breaking text into lines by the width of its letters, in points and in the font that matplotlib is set to."""
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path


def textWidth(text, size, weight='normal'):
    """How wide a line of text is."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), ismath=False)[0]


def wrapped(text, width, size, weight='normal'):
    """The text's lines, none wider than `width` unless a single word is. They break at spaces, no-break ones excepted."""
    lines, space = [], textWidth('n n', size, weight) - textWidth('nn', size, weight)
    for paragraph in text.split('\n'):
        line, used = [], 0.0
        for word in filter(None, paragraph.split(' ')):
            needed = textWidth(word, size, weight)
            if line and used + space + needed > width:
                lines.append(' '.join(line))
                line, used = [], 0.0
            used += needed + space * bool(line)
            line.append(word)
        lines.append(' '.join(line))
    return lines
