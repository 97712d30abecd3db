"""Draws Vega-Lite specifications: FOLDER/NAME.vl.json becomes FOLDER/NAME.svg and FOLDER/NAME.png, at twice the size.

usage: python render_figures.py FOLDER JAVASCRIPT NAME...

JAVASCRIPT is a file to write: the bundle of Vega, Vega-Lite and Vega-Embed that makes the figures of a page interactive
without a network. Nothing is fetched: the data stand in the specifications.
"""
import pathlib
import sys

VEGA_LITE = "5.21"
SCALE = 2


def draw(vl_convert, folder, name):
    specification = (folder / f"{name}.vl.json").read_text(encoding="utf-8")
    options = {"vl_version": VEGA_LITE, "allowed_base_urls": []}
    svg = vl_convert.vegalite_to_svg(specification, **options)
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    (folder / f"{name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=SCALE))


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    try:
        import vl_convert
    except ImportError as error:
        sys.exit(f"{sys.executable} has no vl-convert-python ({error})")
    folder, javascript, *names = arguments
    for name in names:
        draw(vl_convert, pathlib.Path(folder), name)
    pathlib.Path(javascript).write_text(vl_convert.javascript_bundle(vl_version=VEGA_LITE), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
