"""A small text and a small WordNet, made up but learnable, and the `prepare` run that names them."""
import hashlib
import json
import pathlib
import random

ONSETS, VOWELS, CODAS = "b d f g k l m n p r s t v".split(), "a e i o u".split(), ["", "n", "r", "s", "t"]

PANGRAM = "pack my box with five dozen liquor jugs ."


def words(count, seed):
    pick = random.Random(seed)
    made = set()
    while len(made) < count:
        made.add("".join(pick.choice(ONSETS) + pick.choice(VOWELS) for _ in range(2)) + pick.choice(CODAS))
    return sorted(made)


def text(paragraphs=600, seed=5):
    """Sentences of a fixed pattern whose verb follows from its subject: a model can do better than word frequencies."""
    pick = random.Random(seed)
    nouns, verbs, places = words(120, 1), words(120, 2), words(90, 3)

    def sentence():
        n = pick.randrange(len(nouns))
        return f"the {nouns[n]} will {verbs[n]} the {pick.choice(nouns)} near the {pick.choice(places)} ."

    def paragraph():
        # Every letter occurs somewhere, or the tokenizer could not spell the labels.
        return " ".join([*(sentence() for _ in range(pick.randint(3, 7))), pick.choice([""] * 9 + [PANGRAM])]).strip()
    return "\n\n".join(paragraph() for _ in range(paragraphs))


def wordnet(synsets=150, seed=6):
    """data.noun, data.verb, data.adj, data.adv in WordNet's format; the definitions tell the part of speech."""
    pick = random.Random(seed)
    forms = {"noun": ("n", "the thing that is {}"), "verb": ("v", "to act and {}"), "adj": ("a", "being very {}"),
             "adv": ("r", "in a manner like {}")}
    files = {}
    for number, (name, (pos, form)) in enumerate(forms.items()):
        lines = ["  1 A made-up database for tests."]
        for i, lemma in enumerate(words(synsets, 10 + number)):
            frames = " 01 + 02 00" if pos == "v" else ""
            gloss = form.format(" ".join(pick.choice(words(40, 1)) for _ in range(pick.randint(1, 3))) + f" {lemma}")
            lines.append(f"{i:08d} 03 {pos} 01 {lemma} 0 000{frames} | {gloss}")
        files[f"data.{name}"] = "\n".join(lines) + "\n"
    return files


class RawFiles:
    """Writes the raw files; gives their manifest entries and the paths for execution.files."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths = {}

    def add(self, name, content):
        data = content.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        (self.folder / sha256).write_bytes(data)
        self.paths[sha256] = str(self.folder / sha256)
        return {"name": name, "bytes": len(data), "sha256": sha256}


def own_task(rows, seed):
    """JSON lines of a task with free answers: a word is to be said again."""
    pick = random.Random(seed)
    made = []
    for i in range(rows):
        word = pick.choice(words(120, 1))
        made.append(json.dumps({"input": f"say {word}", "target": [word, f"the {word}"], "id": f"row-{i}"}))
    return "\n".join(made) + "\n"


def prepare_run(raw, corpus=None, vocabulary=280, tasks=True):
    run = {"kind": "prepare", "trainer": "builtin",
           "corpus": {"format": "text", "files": [raw.add("text.txt", text() if corpus is None else corpus)],
                      "validation_fraction": 0.1},
           "tokenizer": {"vocabulary": vocabulary}, "tasks": [], "seed": 0}
    if tasks:
        run["tasks"] = [{"name": "wordnet_pos", "files": [raw.add(n, c) for n, c in wordnet().items()]},
                        {"name": "say", "train": "train.jsonl", "valid": "valid.jsonl", "metrics": ["exact_match", "f1"],
                         "files": [raw.add("train.jsonl", own_task(100, 7)), raw.add("valid.jsonl", own_task(30, 8))]}]
    return run
