"""The result of a measurement that goes in pieces: one JSON file, whole after every row."""
import datetime
import json
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import provenance  # noqa: E402


def write_json(path, content):
    """A file that is the old one or the new one, never half of it."""
    temporary = pathlib.Path(f"{path}.partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


class Clock:
    """Time that a call may take, and the part of it that an item may."""

    def __init__(self, limit):
        self.end = time.monotonic() + limit

    def left(self):
        return self.end - time.monotonic()

    def part(self, share):
        return Clock(max(self.left(), 0) * share)


class Rows:
    """Rows by (item, name). One that was measured on this device by this program is kept; one that was skipped is tried again."""

    def __init__(self, path, facts, again=False):
        self.path, self.facts, self.again = pathlib.Path(path), facts, again
        self.rows = json.loads(self.path.read_text())["rows"] if self.path.exists() else []
        self.measured_now = set()
        self.lock = threading.RLock()
        self.save()

    def save(self):
        write_json(self.path, {**provenance.provenance("gpu"), **self.facts, "rows": self.rows})

    def find(self, item, name):
        return next((row for row in self.rows if (row["item"], row["name"]) == (item, name)), None)

    def has(self, item, name):
        row = self.find(item, name)
        kept = row and "skipped" not in row and all(row.get(key) == self.facts.get(key) for key in ("device", "version"))
        return bool(kept and (not self.again or (item, name) in self.measured_now))

    def put(self, item, name, values):
        row = {"item": item, "name": name, "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
               "device": self.facts.get("device"), "version": self.facts.get("version"), **values}
        with self.lock:
            old = self.find(item, name)
            if old:
                self.rows[self.rows.index(old)] = row
            else:
                self.rows.append(row)
            self.measured_now.add((item, name))
            self.save()

    def skip(self, item, name, why):
        """Says why there is no figure. One that was measured before stays."""
        print(f"item {item}, {name}: not measured: {why}", flush=True)
        with self.lock:
            old = self.find(item, name)
            if not old or "skipped" in old:
                self.put(item, name, {"skipped": why})
