#!/usr/bin/env python3
"""Draws a figure with vl-convert-python, as `allo` does: with the script handed over on the command line."""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "report/render_figures.py"
try:
    import vl_convert
except ImportError:
    vl_convert = None

BARS = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "data": {"name": "data", "values": [{"a": "</script>", "b": 1}, {"a": "glu", "b": 2}]},
    "mark": "bar",
    "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
}


def render(folder, *names):
    return subprocess.run([sys.executable, "-c", SCRIPT.read_text(), folder, f"{folder}/vega.js", *names],
                          capture_output=True, text=True)


class WithoutTheWheel(unittest.TestCase):
    @unittest.skipIf(vl_convert, "vl-convert-python is installed")
    def test_names_the_package(self):
        done = render("/nowhere")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("vl-convert-python", done.stderr)


@unittest.skipUnless(vl_convert, "vl-convert-python is not installed: run deploy/install-deps.sh")
class RenderFigures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, specification):
        (self.folder / "bars.vl.json").write_text(json.dumps(specification))

    def test_draws_and_writes_the_bundle_that_makes_pages_interactive(self):
        self.write(BARS)
        done = render(self.folder, "bars")
        self.assertEqual(done.returncode, 0, done.stderr)
        svg = (self.folder / "bars.svg").read_text()
        self.assertTrue(svg.startswith("<svg"))
        self.assertIn("&lt;/script&gt;", svg)
        width = struct.unpack(">I", (self.folder / "bars.png").read_bytes()[16:20])[0]
        self.assertIn(f'width="{width // 2}"', svg[:400])
        bundle = (self.folder / "vega.js").read_text()
        self.assertIn("window.vegaEmbed", bundle)
        self.assertNotIn("</script", bundle)

    def test_fetches_nothing(self):
        self.write({**BARS, "data": {"url": "https://example.org/data.json"}})
        done = render(self.folder, "bars")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("not allowed", done.stderr.replace("disallowed", "not allowed"))

    def test_a_broken_specification_is_an_error(self):
        self.write({"mark": "no such mark"})
        self.assertNotEqual(render(self.folder, "bars").returncode, 0)


if __name__ == "__main__":
    unittest.main()
