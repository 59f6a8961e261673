"""Bar charts in SVG."""

from __future__ import annotations

from html import escape

_WIDTH, _LEFT, _ROW, _GAP = 720, 210, 26, 46
_OWN, _OTHERS = "#e8553d", "#8a99a8"


def bars(groups: dict[str, dict[str, float]]) -> str:
    """Draw a bar for each value. Each group has its own scale, and its first bar is highlighted."""
    lines, top = list[str](), 8
    for title, values in groups.items():
        lines.append(f'<text x="8" y="{top + 18}" font-weight="bold">{escape(title)}</text>')
        top += _GAP - 18
        for number, (name, value) in enumerate(values.items()):
            length = value / max(values.values()) * (_WIDTH - _LEFT - 80)
            middle = top + _ROW // 2 + 4
            lines += [
                f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{_LEFT}" y="{top + 3}" width="{length:.0f}" height="{_ROW - 6}" '
                f'fill="{_OTHERS if number else _OWN}"/>',
                f'<text x="{_LEFT + length + 6:.0f}" y="{middle}">{value:,.{0 if value >= 100 else 1}f}</text>',
            ]
            top += _ROW
        top += _GAP - _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        'font-family="sans-serif" font-size="13" fill="#222">\n'
        f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )
