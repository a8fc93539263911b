"""The colours of tracks and curves, the same in videos, pages, sheets and figures.

They are those of Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, which colour-blind readers
can distinguish.
"""

Colour = tuple[int, int, int]  # RGB in 0..255

BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
PURPLE, ORANGE, SKY_BLUE, YELLOW = "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"
# Neighbours differ in hue and in lightness. Yellow is last: it is hardly visible on paper.
TRACKS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY_BLUE, YELLOW)


def track_hex(track_id: int) -> str:
    """Return the colour of a track for pages and figures, always the same for an id.

    Example:
        >>> track_hex(0), track_hex(1)
        ('#0072B2', '#E69F00')
    """
    return TRACKS[track_id % len(TRACKS)]


def track_colour(track_id: int) -> Colour:
    """Return the same colour as RGB, for drawing on images.

    Example:
        >>> track_colour(0)
        (0, 114, 178)
    """
    red, green, blue = bytes.fromhex(track_hex(track_id)[1:])
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever has the higher contrast to a background (WCAG 2.1).

    Example:
        >>> text_colour((0, 114, 178)), text_colour((230, 159, 0))
        ((255, 255, 255), (0, 0, 0))
    """
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where the contrast to black, (Y + 0.05) / 0.05, is that to white, 1.05 / (Y + 0.05).
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)
